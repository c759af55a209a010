"""One runner per job, on real SQLite and PostgreSQL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import update

from search.errors import JobBusyError, LeaseLostError
from search.lease import LEASE_SECONDS
from search.models import JobRow, JobState
from search.store import Store
from spaces.errors import NetcarveError

ROOT = Path(__file__).resolve().parents[2]


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


@pytest.mark.alone
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


@pytest.mark.alone
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
