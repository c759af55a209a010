"""A job's latency predictor learns from the store's tables, and keeps to what it found first."""

from __future__ import annotations

import numpy as np
import pytest

from predictors import spearman
from predictors.features import FEATURES, NOMINAL_MS, cost_features
from search.latency_learning import device_latency
from search.latency_tables import space_definition, space_key
from search.replay import REPLAY
from search.store_latencies import LatencyRecord, TableDevice
from spaces.population import sample
from tests.search.stand_in import make_stand


@pytest.fixture
def stand(tmp_path, tiny_job):
    stand = make_stand(tmp_path, tiny_job, "a")
    yield stand
    stand.store.close()


def rates(seed):
    return NOMINAL_MS * np.exp(np.random.default_rng(seed).normal(0, 1.0, len(FEATURES)))


def latency(space, population, seed):
    return cost_features(space, population) @ rates(seed)


def record(stand, table, devices, count=150):
    space = stand.space
    rows = sample(space, count, np.random.default_rng(7))
    found = [TableDevice(name, name) for name in devices]
    stand.store.latencies.open_table(
        table, space_definition(space, "base"), space_key(space), found
    )
    configs = [space.from_indices(row) for row in rows]
    for name, seed in devices.items():
        ms = latency(space, rows, seed)
        records = [LatencyRecord(c.key, name, float(t)) for c, t in zip(configs, ms, strict=True)]
        named = {c.key: c.to_json() for c in configs}
        stand.store.latencies.record(table, named, records)


def ask(stand, predictor, job=None):
    return device_latency(stand.store, job or stand.job, "a", stand.space, predictor)


def adapted(stand, found, seed=1):
    rng = np.random.default_rng(3)
    chosen = found.choose(sample(stand.space, 200, rng), 6, rng)
    predictor = found.unfitted()
    predictor.fit(found.encoding(chosen), latency(stand.space, chosen, seed))
    rows = sample(stand.space, 100, np.random.default_rng(4))
    return predictor.predict(found.encoding(rows))[0], latency(stand.space, rows, seed)


def test_tables_of_other_devices_are_learnt_from_but_not_the_devices_own(stand):
    record(stand, "t", {"twin": 1, "other": 2, "a": 3}, count=400)
    found = ask(stand, "nearest")
    predicted, truth = adapted(stand, found)
    # Its twin is in the table; what the table calls `a` is the device itself.
    assert spearman(predicted, truth) > 0.99
    kept = stand.store.jobs.checkpoint(stand.job.id, "latency-tables/a")
    assert set(kept["latencies"]) == {"twin", "other"}


def test_what_others_measure_later_changes_nothing_and_a_replay_agrees(stand):
    first = adapted(stand, ask(stand, "adaptive"))[0]
    record(stand, "t", {"twin": 1, "other": 2})
    np.testing.assert_array_equal(adapted(stand, ask(stand, "adaptive"))[0], first)
    other, _ = stand.store.jobs.record_job("other", dict(stand.job.spec), stand.space.key, 2)
    informed = adapted(stand, ask(stand, "adaptive", other))[0]
    assert not np.array_equal(informed, first)
    spec = {**stand.job.spec, REPLAY: other.id}
    again, _ = stand.store.jobs.record_job("again", spec, stand.space.key, 3)
    record(stand, "u", {"third": 5})
    np.testing.assert_array_equal(adapted(stand, ask(stand, "adaptive", again))[0], informed)


def test_a_fit_leaves_what_was_learnt_untouched(stand):
    record(stand, "t", {"twin": 1, "other": 2})
    found = ask(stand, "adaptive")
    first = adapted(stand, found, seed=1)[0]
    adapted(stand, found, seed=9)
    np.testing.assert_array_equal(adapted(stand, found, seed=1)[0], first)
