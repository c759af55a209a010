from __future__ import annotations

import numpy as np
import pytest

from predictors import LatencyTables, TableError, TooFewSamplesError, spearman
from predictors.latency import (
    AdditiveLatencyPredictor,
    MacsLatencyPredictor,
    NearestLatencyPredictor,
    evaluate,
)
from tests.predictors.latency.on_tables import edges_tables, random_edges

CONFIGS = random_edges(240, 0)
TABLES = edges_tables(CONFIGS)


def rows(configs):
    return {tuple(codes) for codes in configs.codes}


class Witness(MacsLatencyPredictor):
    """Remembers what it is shown."""

    seen = None

    def __init__(self, schema):
        super().__init__(schema)
        self.log = {"learnt": None, "pools": [], "samples": [], "tests": []}
        type(self).seen.append(self.log)

    def _learn(self, tables):
        self.log["learnt"] = tables

    def choose(self, pool, count, rng):
        self.log["pools"].append(rows(pool))
        return super().choose(pool, count, rng)

    def fit(self, samples, latency):
        self.log["samples"].append(rows(samples))
        return super().fit(samples, latency)

    def predict(self, configs):
        self.log["tests"].append(rows(configs))
        return super().predict(configs)


def test_a_family_is_left_out_and_test_configs_are_never_shown():
    Witness.seen = []
    found = evaluate(Witness, TABLES, 10, seeds=(0, 1))
    assert [(f.seed, f.family, f.device) for f in found] == [
        (seed, TABLES.family(device), device) for seed in (0, 1) for device in TABLES.devices
    ]
    # Learnt once for each family and seed.
    assert len(Witness.seen) == 6
    for number, log in enumerate(Witness.seen):
        family = f"kind{number % 3 + 1}"
        assert set(log["learnt"].devices) == set(TABLES.devices) - set(TABLES.members(family))
        shown = rows(log["learnt"].configs) | set.union(*log["pools"])
        for test, samples in zip(log["tests"], log["samples"], strict=True):
            assert len(test) == 80
            assert not test & shown
            assert len(samples) == 10
            assert samples <= shown
    assert Witness.seen[0]["tests"][0] != Witness.seen[3]["tests"][0]


def test_scores_tell_a_good_predictor_from_a_poor_one():
    poor = evaluate(MacsLatencyPredictor, TABLES, 10)
    good = evaluate(AdditiveLatencyPredictor, TABLES, 40)
    for key in ("spearman", "kendall"):
        assert np.mean([getattr(f, key) for f in good]) > np.mean([getattr(f, key) for f in poor])
    assert np.mean([f.mape for f in good]) < np.mean([f.mape for f in poor])
    assert all(0 <= f.coverage90 <= 1 for f in good)
    assert all(f.ceiling is None and f.of_ceiling is None for f in good)


def test_the_ceiling_is_what_two_measurements_agree_on():
    rng = np.random.default_rng(0)
    repeats = {
        device: values * np.exp(rng.normal(0, 0.2, len(values)))
        for device, values in TABLES.latencies.items()
    }
    repeats[TABLES.devices[0]][::2] = np.nan
    for found in evaluate(NearestLatencyPredictor, TABLES, 10, repeats=repeats):
        everywhere = ~np.isnan(repeats[found.device])
        about = spearman(
            TABLES.latencies[found.device][everywhere], repeats[found.device][everywhere]
        )
        assert found.ceiling == pytest.approx(about, abs=0.1)
        assert found.ceiling < 0.99
        assert found.of_ceiling == pytest.approx(found.spearman / found.ceiling)


def test_configs_that_a_device_has_not_measured_are_left_out():
    rng = np.random.default_rng(0)
    gaps = {d: np.where(rng.random(240) < 0.5, np.nan, v) for d, v in TABLES.latencies.items()}
    found = evaluate(NearestLatencyPredictor, LatencyTables(CONFIGS, gaps, TABLES.families), 10)
    assert len(found) == 6
    assert all(np.isfinite([f.spearman, f.mape]).all() for f in found)


def test_what_cannot_be_evaluated_is_a_typed_error():
    with pytest.raises(TooFewSamplesError, match="in the pool"):
        evaluate(MacsLatencyPredictor, TABLES, 161)
    with pytest.raises(TableError, match="must be between 0 and 1"):
        evaluate(MacsLatencyPredictor, TABLES, 10, test_share=1.0)
    with pytest.raises(TableError, match="a repeat of 'nobody'"):
        evaluate(MacsLatencyPredictor, TABLES, 10, repeats={"nobody": np.ones(240)})
