"""Jobs in the store: requests, phases, checkpoints."""

from __future__ import annotations

import time

import pytest

from search.store import Store
from spaces.errors import UnknownNameError


def test_the_same_request_finds_its_job(store: Store, job: str) -> None:
    assert job.startswith("digits-demo-")
    again, new = store.jobs.record_job("Digits demo!", {"epochs": 3}, "space0", 7)
    assert (again.id, new) == (job, False)
    changed = [({"epochs": 4}, "space0", 7), ({"epochs": 3}, "space1", 7), ({"epochs": 3}, "s", 8)]
    for request in changed:
        assert store.jobs.record_job("Digits demo!", *request)[1]
    assert len(store.jobs.jobs()) == 4
    with pytest.raises(UnknownNameError, match=r"Known: .*digits-demo"):
        store.jobs.job("nothing")


def test_phases_add_up_over_runs(store: Store, job: str) -> None:
    with store.jobs.phase(job, "training"):
        time.sleep(0.02)
    with pytest.raises(KeyboardInterrupt), store.jobs.phase(job, "adapting"):
        raise KeyboardInterrupt
    with store.jobs.phase(job, "training"):
        time.sleep(0.02)
    seconds = store.jobs.phase_seconds(job)
    assert list(seconds) == ["training", "adapting"]
    assert 0.04 <= seconds["training"] < 2
    events = store.jobs.events(job, "phase")
    assert [event.data for event in events] == [{}, {"interrupted_by": "KeyboardInterrupt"}, {}]


def test_a_checkpoint_is_replaced(store: Store, job: str) -> None:
    assert store.jobs.checkpoint(job, "sampler") is None
    store.jobs.save_checkpoint(job, "sampler", {"generation": 1, "state": 2**127})
    store.jobs.save_checkpoint(job, "sampler", {"generation": 2, "state": 2**127})
    assert store.jobs.checkpoint(job, "sampler") == {"generation": 2, "state": 2**127}
