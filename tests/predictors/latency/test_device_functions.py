from __future__ import annotations

import numpy as np
import pytest

from predictors import spearman
from predictors.latency.blocks import FeatureBlocks
from predictors.latency.device_functions import DeviceFunctions
from predictors.latency.resemblance import DeviceFactors, kernel_names, learnt_weights
from tests.predictors.latency.on_tables import edges_device, edges_tables, random_edges

POOL = random_edges(300, 0)
TEST = random_edges(600, 1).take(np.arange(300, 600))


def test_a_function_is_nearer_to_the_device_than_its_noisy_table():
    device = edges_device(0, 1)
    noise = np.exp(np.random.default_rng(0).normal(0, 0.1, len(POOL)))
    blocks = FeatureBlocks.of(POOL)
    functions = DeviceFunctions.of(blocks(POOL), [device(POOL) * noise])
    found = functions(blocks(POOL))[:, 0]
    relative = device(POOL) / device(POOL).mean()
    table = device(POOL) * noise / (device(POOL) * noise).mean()
    assert np.abs(found - relative).mean() < 0.6 * np.abs(table - relative).mean()
    # And it holds for configs that the table lacks.
    assert spearman(functions(blocks(TEST))[:, 0], device(TEST)) > 0.98


def test_a_device_with_gaps_and_one_without_rows_are_functions_too():
    device = edges_device(0, 1)(POOL)
    gaps = np.where(np.arange(len(POOL)) % 3 == 0, np.nan, device)
    blocks = FeatureBlocks.of(POOL)
    found = DeviceFunctions.of(blocks(POOL), [device, gaps, np.full(len(POOL), np.nan)])(
        blocks(TEST)
    )
    assert np.isfinite(found).all()
    assert spearman(found[:, 0], found[:, 1]) > 0.98
    assert np.ptp(found[:, 2]) == 0


def test_factors_span_devices_that_are_combinations_of_two():
    rng = np.random.default_rng(0)
    two = rng.normal(size=(100, 2))
    functions = 1.0 + two @ rng.normal(size=(2, 5))
    factors = DeviceFactors.of(functions, 3)(functions)
    assert factors.shape == (100, 2)
    assert (factors**2).sum(axis=1).mean() == pytest.approx(1.0)
    basis = np.column_stack([np.ones(100), factors])
    left = functions - basis @ np.linalg.lstsq(basis, functions, rcond=None)[0]
    assert np.abs(left).max() < 1e-9


def test_devices_alike_are_left_out_together():
    """A twin explains a device fully; with its family left out the factors explain less."""
    tables = edges_tables(POOL, kinds=(1, 2, 3), each=2, noise=0.001)
    blocks = FeatureBlocks.of(POOL)
    own = blocks(POOL)
    latencies = list(tables.latencies.values())
    functions = DeviceFunctions.of(own, latencies)(own)
    names = kernel_names(tuple(own), with_devices=True)
    # Each a copy of the first of its family.
    latencies = [latencies[2 * (number // 2)] for number in range(6)]
    functions = functions[:, [2 * (number // 2) for number in range(6)]]
    known = learnt_weights(own, functions, latencies, list("abcdef"), 0.3, 3)
    families = learnt_weights(own, functions, latencies, list("aabbcc"), 0.3, 3)
    assert known.shape == families.shape == (6, len(names) + 1)
    assert known == pytest.approx(families)
