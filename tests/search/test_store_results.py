"""Evaluations, measurements and bundles in the store: each thing once."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.exc import IntegrityError

from search.models import Purpose
from search.store import Store

ROOT = Path(__file__).resolve().parents[2]
CONFIG = {"stage1.depth": 2, "resolution": 32}
ACCURACY = {"accuracy": 0.9, "loss": 0.3, "count": 100, "split": "selection", "seconds": 2.0}


def evaluate(store: Store, job: str, key: str, **changes: object) -> bool:
    return store.results.record_evaluation(job, key, CONFIG, costs={}, **(ACCURACY | changes))


def test_what_is_recorded_comes_back_with_its_types_and_order(store: Store, job: str) -> None:
    costs = {"macs": 12, "bytes": {"weights": 3.5}, "zeta": 1, "alpha": [1, None, "x", True]}
    assert store.results.record_evaluation(
        job,
        "key1",
        CONFIG,
        accuracy=np.float32(0.25),
        loss=np.float64(1.5),
        count=np.int64(7),
        split="selection",
        costs=costs,
        seconds=0.5,
        artifact="sha256:00",
    )
    (row,) = store.results.evaluations(job)
    assert row.config_key == "key1"
    assert (row.accuracy, row.loss, row.count, row.split) == (0.25, 1.5, 7, "selection")
    assert row.config == CONFIG
    assert list(row.costs.items()) == list(costs.items()), "the order of keys is kept"
    assert row.artifact == "sha256:00"
    assert abs(row.created - time.time()) < 60


def test_each_result_is_recorded_once_and_the_first_stays(store: Store, job: str) -> None:
    assert evaluate(store, job, "key1", accuracy=0.9)
    assert not evaluate(store, job, "key1", accuracy=0.1)
    assert [row.accuracy for row in store.results.evaluations(job)] == [0.9]

    other = store.jobs.record_job("other", {}, "space0", 0)[0].id
    assert evaluate(store, other, "key1"), "the same config of another job is another evaluation"

    def measure(device: str, purpose: Purpose, median_ms: float) -> bool:
        figures, extra = {"median_ms": median_ms}, {"generation": 1}
        return store.results.record_measurement(
            job, "key1", CONFIG, device, purpose, figures, extra
        )

    def medians(**which: object) -> list[float]:
        return [row.measurement["median_ms"] for row in store.results.measurements(job, **which)]

    store.devices.record_devices({"gpu": ({}, {})})
    assert measure("cpu", Purpose.VERIFY, 1.0)
    assert not measure("cpu", Purpose.VERIFY, 2.0)
    assert measure("cpu", Purpose.FINAL, 3.0)
    assert measure("gpu", Purpose.VERIFY, 4.0)
    assert medians() == [1.0, 3.0, 4.0]
    assert medians(device="gpu") == [4.0]
    assert medians(device="cpu", purpose=Purpose.FINAL) == [3.0]
    assert store.results.measurements(job)[0].extra == {"generation": 1}

    assert store.results.record_supernet("net", "sha256:1", {"loss": 1})
    assert not store.results.record_supernet("net", "sha256:2", {"loss": 2})
    found = store.results.supernet("net")
    assert found is not None
    assert found.artifact == "sha256:1"
    assert store.results.supernet("none") is None


def test_a_second_export_of_a_bundle_replaces_its_place(store: Store, job: str) -> None:
    def record(path: str) -> bool:
        return store.results.record_bundle(
            job, "cpu", "key1", path=path, manifest_sha256="ab", metrics={"accuracy": 0.9}
        )

    assert record("/first")
    assert not record("/second")
    assert [row.path for row in store.results.bundles(job, device="cpu")] == ["/second"]
    assert store.results.bundles(job, device="other") == []


def test_a_loss_that_is_not_finite_is_kept_as_none(store: Store, job: str) -> None:
    evaluate(store, job, "nan", loss=math.nan)
    evaluate(store, job, "inf", loss=math.inf)
    assert [row.loss for row in store.results.evaluations(job)] == [None, None]


def test_results_of_unknown_jobs_and_devices_are_refused(store: Store, job: str) -> None:
    with pytest.raises(IntegrityError):
        evaluate(store, "no-such-job", "key1")
    with pytest.raises(IntegrityError):
        store.results.record_measurement(
            job, "key1", CONFIG, "no-device", Purpose.FINAL, {"median_ms": 1.5}, {}
        )
    assert store.results.measurements(job) == []


WRITING = """
import sys
from search.store import Store
store = Store(sys.argv[1])
new = 0
for number in range(40):
    new += store.results.record_evaluation(
        sys.argv[2], f"key{number}", {}, accuracy=0.5, loss=1.0, count=1, split="selection",
        costs={}, seconds=0.0)
print(new)
"""


def test_processes_that_write_at_once_lose_and_repeat_nothing(store: Store, job: str) -> None:
    url = store.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", WRITING, url, job]
    writers = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    outputs = [writer.communicate(timeout=60)[0] for writer in writers]
    assert sum(map(int, outputs)) == 40, "each was new for exactly one writer"
    assert len(store.results.evaluations(job)) == 40
