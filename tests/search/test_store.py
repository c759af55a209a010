"""The store on real SQLite and PostgreSQL: each thing once, one runner per job."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import IntegrityError

from search.errors import JobBusyError, LeaseLostError, RecordConflictError, StoreError
from search.lease import LEASE_SECONDS
from search.models import JobRow, JobState, Purpose
from search.store import Store
from spaces.errors import NetcarveError, UnknownNameError

ROOT = Path(__file__).resolve().parents[2]
CONFIG = {"stage1.depth": 2, "resolution": 32}
ACCURACY = {"accuracy": 0.9, "loss": 0.3, "count": 100, "split": "selection", "seconds": 2.0}


@pytest.fixture
def store(empty_database: str) -> Iterator[Store]:
    with Store(empty_database) as store:
        yield store


@pytest.fixture
def job(store: Store) -> str:
    store.devices.record_devices({"cpu": ({"isa": "avx2"}, {"schemes": ["fp32", "w8a8"]})})
    return store.jobs.record_job("Digits demo!", {"epochs": 3}, "space0", 7)[0].id


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


def test_a_failed_block_writes_nothing(store: Store, job: str) -> None:
    class StopError(Exception):
        pass

    def fail_after_a_write() -> None:
        with store.writing() as session:
            session.execute(update(JobRow).values(name="changed"))
            raise StopError

    with pytest.raises(StopError):
        fail_after_a_write()
    assert store.jobs.job(job).name == "Digits demo!"


def test_devices_and_their_spaces(store: Store) -> None:
    devices = store.devices
    devices.record_devices({"cpu": ({"isa": "avx2"}, {"threads": 1})})
    devices.record_devices({"cpu": ({"isa": "avx2"}, {"threads": 2})})
    assert devices.device("cpu").capabilities == {"threads": 1}
    with pytest.raises(RecordConflictError, match="another configuration"):
        devices.record_devices({"cpu": ({"isa": "avx512"}, {})})
    devices.record_devices({"cpu": ({"isa": "avx512"}, {"threads": 4})}, replace=True)
    assert devices.device("cpu").config == {"isa": "avx512"}
    assert devices.device("cpu").capabilities == {"threads": 4}
    with pytest.raises(UnknownNameError, match=r"Did you mean 'cpu'.*Known: cpu"):
        devices.device("cpuu")

    assert devices.record_space("cpu", "small", "base", {"d": [1]}, "base: base\n")
    assert not devices.record_space("cpu", "small", "base", {"d": [2]}, "base: base # 2\n")
    assert devices.space("cpu", "small").space == {"d": [2]}
    assert devices.space("cpu", "small").source == "base: base # 2\n"
    with pytest.raises(UnknownNameError, match="Known: small"):
        devices.space("cpu", "smal1")
    with pytest.raises(UnknownNameError, match="unknown device 'tpu'"):
        devices.record_space("tpu", "small", "base", {}, "")
    assert [(row.device, row.name) for row in devices.spaces()] == [("cpu", "small")]
    assert devices.spaces("tpu") == []


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


def test_a_lease_is_exclusive_and_ends_with_its_block(store: Store, job: str) -> None:
    assert store.jobs.state(job) is JobState.QUEUED
    with store.jobs.claim(job) as lease:
        assert store.jobs.state(job) is JobState.RUNNING
        with pytest.raises(JobBusyError, match=f"process {os.getpid()} on "):
            store.jobs.claim(job)
        lease.finish(JobState.DONE)
    assert store.jobs.state(job) is JobState.DONE
    with store.jobs.claim(job):
        pass
    assert store.jobs.state(job) is JobState.STOPPED
    with pytest.raises(NetcarveError), store.jobs.claim(job):
        raise NetcarveError("the data set has one class")
    assert store.jobs.state(job) is JobState.FAILED
    assert store.jobs.job(job).error == "NetcarveError: the data set has one class"
    with pytest.raises(KeyboardInterrupt), store.jobs.claim(job):
        raise KeyboardInterrupt
    assert (store.jobs.state(job), store.jobs.job(job).error) == (JobState.STOPPED, None)
    assert store.jobs.events(job, "takeover") == []


@pytest.mark.parametrize("before", ["nobody", "a dead process"])
def test_of_many_simultaneous_claims_one_wins(store: Store, job: str, before: str) -> None:
    if before == "a dead process":
        store.jobs.claim(job)
        with store.writing() as session:
            session.execute(update(JobRow).values(lease_started="in another life"))
    barrier, won, busy = threading.Barrier(8), [], []

    def claim() -> None:
        barrier.wait()
        try:
            won.append(store.jobs.claim(job))
        except JobBusyError as error:
            busy.append(error)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(busy)) == (1, 7)


CLAIMING = """
import sys, time
from search.store import Store
lease = Store(sys.argv[1]).jobs.claim(sys.argv[2])
lease.__enter__()
print("claimed", flush=True)
time.sleep(600)
"""


def test_the_job_of_a_killed_process_is_taken_over_at_once(store: Store, job: str) -> None:
    url = store.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", CLAIMING, url, job]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as runner:
        try:
            assert runner.stdout is not None
            assert runner.stdout.readline() == "claimed\n"
            assert store.jobs.state(job) is JobState.RUNNING
            with pytest.raises(JobBusyError, match=f"process {runner.pid} "):
                store.jobs.claim(job)
            runner.send_signal(signal.SIGSTOP)
            with pytest.raises(JobBusyError):
                store.jobs.claim(job)
        finally:
            runner.kill()
        # Not waited for: a zombie is as dead as it gets.
        time.sleep(0.2)
        assert store.jobs.state(job) is JobState.STOPPED
        with store.jobs.claim(job):
            assert store.jobs.state(job) is JobState.RUNNING
        takeover = store.jobs.events(job, "takeover")
        assert [event.data["pid"] for event in takeover] == [runner.pid]


def test_a_lease_of_another_host_is_taken_over_when_its_heartbeat_is_old(
    store: Store, job: str
) -> None:
    lease = store.jobs.claim(job)

    def from_elsewhere(age: float) -> None:
        with store.writing() as session:
            values = {"lease_host": "elsewhere", "heartbeat": time.time() - age}
            session.execute(update(JobRow).values(**values))

    from_elsewhere(LEASE_SECONDS - 10)
    assert store.jobs.state(job) is JobState.RUNNING
    with pytest.raises(JobBusyError, match="on elsewhere"):
        store.jobs.claim(job)
    from_elsewhere(LEASE_SECONDS + 10)
    assert store.jobs.state(job) is JobState.STOPPED
    successor = store.jobs.claim(job)
    with pytest.raises(LeaseLostError, match="taken over"):
        lease.renew()
    with pytest.raises(LeaseLostError):
        lease.check()
    lease.finish(JobState.DONE)
    assert store.jobs.state(job) is JobState.RUNNING, "who lost the job does not end it"
    successor.renew()
    successor.check()
    successor.finish(JobState.DONE)
    assert store.jobs.state(job) is JobState.DONE


def test_the_heartbeat_goes_on_beside_the_work(store: Store, job: str) -> None:
    lease = store.jobs.claim(job)
    lease._interval = 0.05
    with lease:
        first = store.jobs.job(job).heartbeat
        time.sleep(0.5)
        second = store.jobs.job(job).heartbeat
        assert first is not None
        assert second is not None
        assert second > first + 0.3
        assert abs(second - time.time()) < 5, "seconds since the epoch, on either database"
        with store.writing() as session:
            session.execute(update(JobRow).values(lease_token="another"))
        time.sleep(0.3)
        with pytest.raises(LeaseLostError):
            lease.check()


def test_a_heartbeat_that_keeps_failing_gives_the_job_up(
    store: Store, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.lease.LEASE_SECONDS", 0.5)
    lease = store.jobs.claim(job)
    lease._interval = 0.02
    renew, failing = lease.renew, threading.Event()

    def fail_or_renew() -> None:
        if failing.is_set():
            raise RuntimeError("out of threads")
        renew()

    monkeypatch.setattr(lease, "renew", fail_or_renew)
    with lease:
        failing.set()
        time.sleep(0.1)
        failing.clear()
        before = store.jobs.job(job).heartbeat
        time.sleep(0.3)
        after = store.jobs.job(job).heartbeat
        assert before is not None
        assert after is not None
        assert after > before, "one failure does not end the heartbeat"
        failing.set()
        lease.check()
        deadline = time.monotonic() + 20
        while not lease._lost and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(LeaseLostError, match=r"not written.*RuntimeError: out of threads"):
            lease.check()


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


def test_sqlite_is_set_up_for_several_processes(tmp_path: Path) -> None:
    with Store(f"sqlite:///{tmp_path / 'store.db'}") as store, store.reading() as session:
        settings = {
            name: session.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    expected = {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1, "busy_timeout": 30000}
    assert settings == expected


def test_the_database_is_the_argument_else_the_environment_else_in_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("NETCARVE_HOME", str(home))
    monkeypatch.delenv("NETCARVE_DB", raising=False)
    Store().close()
    assert (home / "netcarve.db").is_file()
    monkeypatch.setenv("NETCARVE_DB", f"sqlite:///{tmp_path / 'environment.db'}")
    Store().close()
    assert (tmp_path / "environment.db").is_file()
    Store(f"sqlite:///{tmp_path / 'argument.db'}").close()
    assert (tmp_path / "argument.db").is_file()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("results.db", "not a database URL.*sqlite:///FILE"),
        ("mysql://user@host/db", "starts with 'mysql'.*postgresql://"),
        ("sqlite:////no/such/folder/store.db", "does not exist: /no/such/folder"),
        ("postgresql://user:secret@127.0.0.1:1/db", r"user:\*\*\*@127.0.0.1"),
    ],
)
def test_unusable_urls_are_typed_errors(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        Store(url)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes, not a database\n" * 100)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"notes\.txt: file is not a database"):
        Store(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_store_in_memory_works(tmp_path: Path) -> None:
    with Store("sqlite://") as store:
        store.devices.record_devices({"cpu": ({}, {})})
        assert [row.name for row in store.devices.devices()] == ["cpu"]


def test_a_lock_held_too_long_is_a_typed_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.store_engine.BUSY_TIMEOUT_S", 0.2)
    path = tmp_path / "store.db"
    with Store(f"sqlite:///{path}") as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="database is locked"):
            store.devices.record_devices({"cpu": ({}, {})})
        assert store.devices.devices() == [], "readers are not kept waiting by a writer"
        other.rollback()
        other.close()
        store.devices.record_devices({"cpu": ({}, {})})
