from __future__ import annotations

import numpy as np
import pytest

from predictors import (
    LATENCY_PREDICTORS,
    Configs,
    ConfigSchema,
    NotFittedError,
    PredictorFileError,
    TableError,
    TooFewSamplesError,
    spearman,
)
from predictors.latency import Amount, Column
from predictors.latency.encoding import KERNEL_SUM
from tests.predictors.latency.on_tables import (
    edges_device,
    edges_schema,
    edges_tables,
    random_edges,
)

POOL = random_edges(250, 0)
TEST = random_edges(600, 1).take(np.arange(300, 600))
NAMES = ("macs", "lookup", "additive", "nearest")


def make(name, schema=None):
    return LATENCY_PREDICTORS.get(name)(schema or edges_schema()).learn(edges_tables(POOL))


def fitted(name, device, count=10, seed=0):
    predictor = make(name)
    samples = POOL.take(predictor.choose(POOL, count, np.random.default_rng(seed)))
    return predictor.fit(samples, device(samples))


@pytest.mark.parametrize("name", NAMES)
def test_predictions_are_positive_milliseconds_that_follow_the_clock(name):
    device = edges_device(3, 1)
    mean, std = fitted(name, device).predict(TEST)
    assert (np.isfinite(mean) & (mean > 0) & np.isfinite(std) & (std > 0)).all()
    assert 0.4 < np.median(mean / device(TEST)) < 2.5
    slow, wide = fitted(name, lambda configs: 1000 * device(configs)).predict(TEST)
    assert slow == pytest.approx(1000 * mean, rel=1e-6)
    assert wide == pytest.approx(1000 * std, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_one_predicts_the_same(name, tmp_path):
    device = edges_device(3, 1)
    predictor = fitted(name, device)
    predictor.save(tmp_path / "it.safetensors")
    loaded = type(predictor).load(tmp_path / "it.safetensors")
    for found, wanted in zip(loaded.predict(TEST), predictor.predict(TEST), strict=True):
        assert np.array_equal(found, wanted)
    other = LATENCY_PREDICTORS.get(NAMES[NAMES.index(name) - 1])
    with pytest.raises(PredictorFileError, match="holds the predictor"):
        other.load(tmp_path / "it.safetensors")


@pytest.mark.parametrize("name", NAMES)
def test_what_was_learnt_travels_without_a_fit(name, tmp_path):
    predictor = make(name)
    predictor.save(tmp_path / "it.safetensors")
    loaded = type(predictor).load(tmp_path / "it.safetensors")
    with pytest.raises(NotFittedError):
        loaded.predict(TEST)
    device, samples = edges_device(3, 1), POOL.take(np.arange(10))
    expected = predictor.fit(samples, device(samples)).predict(TEST)[0]
    assert np.array_equal(loaded.fit(samples, device(samples)).predict(TEST)[0], expected)


@pytest.mark.parametrize("name", NAMES)
def test_the_choice_is_random_distinct_and_repeatable(name):
    predictor = make(name)
    rows = predictor.choose(POOL, 10, np.random.default_rng(0))
    assert len(set(rows.tolist())) == 10
    assert rows.tolist() == predictor.choose(POOL, 10, np.random.default_rng(0)).tolist()
    assert rows.tolist() != predictor.choose(POOL, 10, np.random.default_rng(1)).tolist()


@pytest.mark.parametrize("name", ["macs", "lookup", "nearest"])
def test_one_wild_measurement_does_not_move_the_factor(name):
    device = edges_device(3, 1)
    samples = POOL.take(np.arange(9))
    latency = device(samples)
    clean, _ = make(name).fit(samples, latency).predict(TEST)
    latency[4] *= 10
    disturbed, _ = make(name).fit(samples, latency).predict(TEST)
    assert spearman(clean, disturbed) > 0.9
    assert abs(np.log(np.median(disturbed / clean))) < 0.7


def test_macs_are_scaled_by_one_factor():
    device = edges_device(3, 1)
    mean, std = fitted("macs", device).predict(TEST)
    assert np.ptp(mean / TEST.amounts[:, 0]) < 1e-9 * mean.max()
    assert np.ptp(std / mean) < 1e-9
    with pytest.raises(TableError, match="no amount of MACs"):
        LATENCY_PREDICTORS.get("macs")(edges_schema(macs=False))


def test_lookup_adds_up_what_choices_cost_elsewhere():
    """A device like those of one kind only, learnt from that kind, is nearly its table."""
    device = edges_device(5, 1)
    predictor = LATENCY_PREDICTORS.get("lookup")(edges_schema()).learn(
        edges_tables(POOL, kinds=(1,))
    )
    samples = POOL.take(np.arange(10))
    mean, _ = predictor.fit(samples, device(samples)).predict(TEST)
    assert spearman(device(TEST), mean) > 0.93
    alone = LATENCY_PREDICTORS.get("lookup")(edges_schema())
    with pytest.raises(NotFittedError, match="call learn first"):
        alone.fit(samples, device(samples))


def test_lookup_scales_the_sum_of_known_kernels():
    schema = ConfigSchema((Column("c", (1, 2, 3, 4), "c"),), (Amount(KERNEL_SUM, 1.0),))
    configs = Configs(
        schema, np.arange(4, dtype=np.int16)[:, None], np.array([[1.0], [2], [4], [8]])
    )
    predictor = LATENCY_PREDICTORS.get("lookup")(schema)
    mean, std = predictor.fit(configs.take([0, 2]), np.array([1.5, 6.0])).predict(configs)
    assert mean == pytest.approx([1.5, 3.0, 6.0, 12.0])
    assert (std < 0.1 * mean).all()


def test_nearest_finds_the_twin_and_reads_its_table():
    tables = edges_tables(POOL, noise=0.1)
    predictor = LATENCY_PREDICTORS.get("nearest")(edges_schema()).learn(tables)
    samples = POOL.take(np.arange(12))
    twin = tables.latencies["device2-1"]
    predictor.fit(samples, 7.0 * twin[:12])
    assert predictor.nearest == "device2-1"
    mean, _ = predictor.predict(POOL)
    assert mean == pytest.approx(7.0 * twin)
    beyond, _ = predictor.predict(TEST)
    assert spearman(edges_device(1, 2)(TEST), beyond) > 0.9


def test_additive_finds_an_additive_device_from_its_own_measurements():
    costs = np.array([0.1, 0.2, 0.8, 3.0, 0.5])

    def device(configs):
        return 1.0 + costs[configs.codes.astype(int)] @ np.arange(1, 7)

    errors = []
    for count in (10, 60):
        mean, _ = fitted("additive", device, count).predict(TEST)
        errors.append(np.abs(mean / device(TEST) - 1).mean())
    assert errors[1] < 0.02 < errors[0]


def test_too_few_measurements_are_a_typed_error():
    device, samples = edges_device(3, 1), POOL.take(np.array([0]))
    with pytest.raises(TooFewSamplesError, match="nearest needs at least 2"):
        make("nearest").fit(samples, device(samples))
