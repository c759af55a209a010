from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from predictors import (
    InvalidTargetError,
    NotFittedError,
    TableError,
    TooFewSamplesError,
    TransferAccuracyPredictor,
    kendall,
)
from predictors.accuracy import NetworkSettings
from spaces import SearchSpace
from spaces.dimension import Dimension, DimensionKind
from spaces.families import Family, FamilySettings, Slot
from spaces.layer_spec import LayerSpec, Operator
from spaces.population import sample
from tests.predictors.accuracy.perceptron import perceptron_space

NASBENCH = Path(__file__).parents[4] / "shared" / "latency" / "data" / "nasbench201"
SMALL = NetworkSettings(hidden=(64, 64), steps=200, members=4)


class CellSettings(FamilySettings):
    pass


class Cells(Family):
    """NAS-Bench-201: an operator on each of six edges."""

    name = "cells"
    settings_type = CellSettings
    input_channels, classes = 3, 10

    def dimensions(self):
        ops = ("none", "skip", "conv1", "conv3", "pool")
        return tuple(Dimension(f"e{n}", DimensionKind.BLOCK, ops) for n in range(6))

    def slots(self):
        def edge(n):
            def layers(values):
                kernel = {"conv1": 1, "conv3": 3}.get(values[f"e{n}"])
                if kernel is None:
                    return ()
                return (LayerSpec(f"e{n}", Operator.CONV, 16, 16, 32, 32, kernel),)

            return Slot(f"e{n}", (f"e{n}",), layers)

        return tuple(edge(n) for n in range(6))


def means(space, float32, samples, test, counts, seeds):
    """Mean tau by number of quantised samples: (transferred, from scratch)."""
    found = {count: [] for count in counts}
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(samples[0]))
        settings = NetworkSettings(**{**vars(SMALL), "seed": seed})
        taught = TransferAccuracyPredictor(space, settings).fit_fp32(*float32)
        alone = TransferAccuracyPredictor(space, settings)
        for count in counts:
            rows = order[:count]
            pair = []
            for predictor in (taught, alone):
                predictor.fit(samples[0][rows], samples[1][rows])
                pair.append(kendall(test[1], predictor.predict(test[0])[0]))
            found[count].append(pair)
    return {count: np.mean(pairs, axis=0) for count, pairs in found.items()}


def test_a_transferred_predictor_with_half_the_samples_is_better(perceptron):
    """APQ's bits (4, 6, 8), mixed forms: 50 quantised samples against 100 without float32 ones."""
    space, rng = perceptron_space((4, 6, 8)), np.random.default_rng(0)
    float32 = sample(space, 200, rng)
    quantised = sample(space, 400, rng)
    accuracy = perceptron.accuracies(space, quantised)
    known = float32, perceptron.accuracies(space, float32, quantised=False)
    samples, test = ((quantised[part], accuracy[part]) for part in np.split(np.arange(400), 2))
    tau = means(space, known, samples, test, (25, 50, 100), seeds=2)
    for transferred, scratch in tau.values():
        assert transferred > scratch
    assert tau[50][0] > tau[100][1]


@pytest.mark.slow
def test_accuracies_of_one_data_set_are_transferred_to_another():
    """NAS-Bench-201, where CIFAR-10 stands for float32 and ImageNet16-120 for quantised."""
    if not NASBENCH.exists():
        pytest.skip("the NAS-Bench-201 tables are not here")
    names = json.loads((NASBENCH / "splits.json").read_text())["arch_cols"]
    wanted = [*names, "acc_cifar10_val", "acc_imagenet16_val"]
    columns = pq.read_table(NASBENCH / "data.parquet", columns=wanted).to_pydict()
    population = np.stack([columns[name] for name in names], axis=1).astype(np.int16)
    first, second = (np.array(columns[name]) / 100 for name in wanted[-2:])
    order = np.random.default_rng(0).permutation(len(population))
    many, few, others = order[:1000], order[1000:1300], order[-1000:]
    space = SearchSpace("cells", Cells(CellSettings()))
    tau = means(
        space,
        (population[many], first[many]),
        (population[few], second[few]),
        (population[others], second[others]),
        (30, 100, 300),
        seeds=1,
    )
    for transferred, scratch in tau.values():
        assert transferred > scratch
    assert tau[100][0] > tau[300][1]


def test_float32_subnets_among_the_samples_are_learnt_first():
    space, rng = perceptron_space((4, 32)), np.random.default_rng(0)
    bits = np.array([name.endswith(".w_bits") for name in space.names])
    population = sample(space, 60, rng)
    population[:30, bits] = 1
    # Width decides alone, and only float32 subnets show all of it.
    accuracy = 0.5 + 0.1 * population[:, space.position("width")] - 0.1 * (np.arange(60) >= 30)
    width = space.position("width")
    kept = (np.arange(60) < 30) | (population[:, width] < 2)
    predictor = TransferAccuracyPredictor(space, SMALL).fit(population[kept], accuracy[kept])
    wide = sample(space, 200, rng)
    wide = wide[~(wide[:, bits] == 1).all(axis=1)]
    mean, _ = predictor.predict(wide)
    by_width = [mean[wide[:, width] == index].mean() for index in range(4)]
    assert (np.diff(by_width) > 0).all()


def test_quantisation_does_not_count_while_float32_is_learnt():
    space, rng = perceptron_space((4, 8)), np.random.default_rng(0)
    population = sample(space, 100, rng)
    predictor = TransferAccuracyPredictor(space, SMALL)
    accuracy = rng.uniform(0.5, 0.9, 100)
    bits = [name.endswith("_bits") for name in space.names]
    other = population.copy()
    other[:, bits] = 1 - other[:, bits]
    quantised = sample(space, 20, rng), rng.uniform(0.5, 0.9, 20)
    found = [
        predictor.fit_fp32(architectures, accuracy).fit(*quantised).predict(population)[0]
        for architectures in (population, other)
    ]
    assert np.array_equal(*found)


def test_what_float32_cannot_be_learnt_from():
    space = perceptron_space()
    population = sample(space, 12, np.random.default_rng(0))
    predictor = TransferAccuracyPredictor(space, SMALL)
    with pytest.raises(InvalidTargetError, match="allowed: 0 to 1"):
        predictor.fit_fp32(population, np.full(12, 50.0))
    with pytest.raises(TableError, match="dimensions"):
        predictor.fit_fp32(population[:, 1:], np.full(12, 0.5))
    # Twelve configs of one architecture.
    same = population.copy()
    same[:, [not n.endswith("_bits") for n in space.names]] = 0
    with pytest.raises(TooFewSamplesError, match="got 1"):
        predictor.fit_fp32(same, np.full(12, 0.5))
    predictor.fit_fp32(population, np.linspace(0.5, 0.9, 12))
    with pytest.raises(NotFittedError):
        predictor.predict(population)
