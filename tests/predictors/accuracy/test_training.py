from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from predictors.accuracy.ensemble import Rows
from predictors.accuracy.network import init_network
from predictors.accuracy.settings import NetworkSettings
from predictors.accuracy.training import _left_out, train

SETTINGS = NetworkSettings(hidden=(24,), steps=150)


def trained(count=60, settings=SETTINGS, noise=0.0, seed=0):
    """Networks of a plane in ten dimensions, and 500 other points of it."""
    rng = np.random.default_rng(5)
    inputs = rng.normal(0, 10**-0.5, (count + 500, 10))
    error = 0.1 * np.exp(inputs @ rng.normal(0, 1, 10))
    accuracy = 1 - np.clip(error * np.exp(rng.normal(0, noise, len(error))), 0, 1)
    rows = Rows.of(inputs, np.zeros((len(inputs), 0)))
    generator = torch.Generator().manual_seed(seed)
    start = init_network(10, 1, settings.hidden, settings.members, generator)
    subnets = np.arange(count, dtype=np.uint64)
    known = rows.take(slice(0, count))
    ensemble = train(start, known, subnets, accuracy[:count], settings, generator)
    return ensemble, rows.take(slice(count, None)), accuracy[count:]


def test_a_plane_is_learnt_and_with_small_batches_too():
    for settings in (SETTINGS, replace(SETTINGS, batch=16)):
        ensemble, rows, accuracy = trained(settings=settings)
        mean, _ = ensemble.predict(rows)
        assert np.corrcoef(mean, accuracy)[0, 1] > 0.9


def test_noise_of_samples_is_noise_of_predictions():
    exact, noisy = (trained(count=150, noise=noise) for noise in (0.0, 0.8))
    assert noisy[0].noise > 2 * exact[0].noise
    for ensemble, rows, accuracy in (exact, noisy):
        mean, std = ensemble.predict(rows)
        inside = np.abs(mean - accuracy) <= 1.645 * std
        assert 0.7 < inside.mean() <= 1


def test_training_leaves_the_start_and_torch_alone():
    generator = torch.Generator().manual_seed(0)
    start = init_network(10, 1, SETTINGS.hidden, SETTINGS.members, generator)
    before = {name: value.clone() for name, value in start.items()}
    state = torch.get_rng_state()
    with torch.no_grad():
        rows = Rows.of(np.eye(10), np.zeros((10, 0)))
        subnets = np.arange(10, dtype=np.uint64)
        found = train(start, rows, subnets, np.linspace(0.1, 0.9, 10), SETTINGS, generator)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in before.items():
        assert torch.equal(start[name], value)
        assert not torch.equal(found.parameters[name], value)
        assert not found.parameters[name].requires_grad


def test_each_subnet_is_left_out_by_one_member():
    subnets = np.array([3, 9, 9, 4, 1, 7, 7, 7, 2, 0], dtype=np.uint64)
    found = _left_out(subnets, 3, torch.Generator().manual_seed(0)).numpy()
    assert found.shape == (3, 10)
    assert (found.sum(axis=0) == 1).all()
    assert found.any(axis=1).all()
    by = found.argmax(axis=0)
    assert by[1] == by[2]
    assert by[5] == by[6] == by[7]
    # More members than subnets: some leave out none.
    few = _left_out(subnets[:2], 5, torch.Generator().manual_seed(0))
    assert few.sum() == 2


def test_equal_accuracies_are_predicted_as_such():
    rows = Rows.of(np.eye(10), np.zeros((10, 0)))
    generator = torch.Generator().manual_seed(0)
    start = init_network(10, 1, SETTINGS.hidden, SETTINGS.members, generator)
    subnets = np.arange(10, dtype=np.uint64)
    ensemble = train(start, rows, subnets, np.full(10, 0.97), SETTINGS, generator)
    mean, std = ensemble.predict(rows)
    assert mean == pytest.approx(np.full(10, 0.97), abs=2e-3)
    assert (std > 0).all()
