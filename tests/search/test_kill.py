"""kill -9 at any time: the same command finishes, nothing finished is lost or done again."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import optuna
import pytest
import yaml

from search.host_lock import HostLock
from search.models import JobState
from search.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

COMMAND = "from cli.main import main; main()"


class Job:
    """The tiny job as its user runs it: one command, in a process group of its own."""

    def __init__(self, folder: Path, runtime_dir: Path, settings: dict) -> None:
        self.file = folder / "job.yaml"
        self.file.write_text(yaml.safe_dump(settings))
        self.home = folder / "home"
        self.mark = f"NETCARVE_TEST_MARK={folder}"
        self.lock = HostLock(runtime_dir)
        self.log = folder / "log"

    def start(self) -> subprocess.Popen[bytes]:
        name, _, value = self.mark.partition("=")
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, "search", "run", self.file, "--home", self.home],
            stdout=self.log.open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, name: value},
        )

    def survivors(self) -> list[str]:
        """Command lines of living processes that the job has started."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found

    def doing(self, purpose: str) -> bool:
        """Whether the job holds the host's lock for this purpose."""
        return any(holder.purpose.startswith(purpose) for holder in self.lock.holders())

    def steps(self) -> int:
        """Training steps of the newest checkpoint."""
        found = self.home.glob("supernets/*/step-*")
        return max((int(path.name.removeprefix("step-")) for path in found), default=0)

    def evaluations(self) -> int:
        """Finished accuracy evaluations. Asked many times a second: opening a store takes long."""
        file = self.home / "netcarve.db"
        if not file.exists():
            return 0
        with closing(sqlite3.connect(file)) as database:
            try:
                (count,) = database.execute("SELECT count(*) FROM evaluation").fetchone()
            except sqlite3.OperationalError:
                return 0  # the job is just making the table
        return int(count)

    def results(self) -> dict[tuple[str, ...], tuple[float, int]]:
        """Every finished result -> when it was stored, and when its file was last written."""
        if not (self.home / "netcarve.db").exists():
            return {}
        with Store(f"sqlite:///{self.home / 'netcarve.db'}") as store:
            jobs = store.jobs.jobs()
            if not jobs:
                return {}
            found = {}
            folder = self.home / "jobs" / jobs[0].id
            for row in store.results.evaluations(jobs[0].id):
                weights = folder / "subnets" / row.config_key / "subnet.safetensors"
                found["evaluation", row.config_key] = (row.created, weights.stat().st_mtime_ns)
            for row in store.results.measurements(jobs[0].id):
                found["measurement", row.config_key, row.purpose] = (row.created, 0)
            return found


def wait_for(condition, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


# What must be going on when the job is killed; each in turn, of one and the same job.
MOMENTS = {
    "training, after a checkpoint": lambda job: job.doing("training") and job.steps() >= 1,
    "training, further on": lambda job: job.doing("training") and job.steps() >= 4,
    "evaluating the references": lambda job: (
        job.doing("accuracy evaluation") and job.evaluations() >= 1
    ),
    "evaluating, further on": lambda job: (
        job.doing("accuracy evaluation") and job.evaluations() >= 4
    ),
    "measuring": lambda job: job.doing("measurement"),
    "measuring again": lambda job: job.doing("measurement"),
    "verifying a generation": lambda job: job.evaluations() >= 9,
}


def test_killed_job_finishes_with_the_same_command(tmp_path, runtime_dir, tiny_job):
    job = Job(tmp_path, runtime_dir, tiny_job)
    finished: dict[tuple[str, ...], tuple[float, int]] = {}
    for number, (moment, reached) in enumerate(MOMENTS.items()):
        process = job.start()
        there = wait_for(
            lambda reached=reached, process=process: reached(job) or process.poll() is not None, 200
        )
        assert there, f"never {moment}: {job.log.read_text()[-2000:]}"
        assert process.poll() is None, f"ended before {moment}: {job.log.read_text()[-2000:]}"
        # The whole group, and the parent alone, by turns.
        (os.killpg if number % 2 == 0 else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
        assert wait_for(lambda: not job.survivors(), 15), job.survivors()
        now = job.results()
        assert finished.items() <= now.items(), "a finished result was lost or done again"
        finished = now
    process = job.start()
    assert process.wait(300) == 0, job.log.read_text()[-3000:]
    assert wait_for(lambda: not job.survivors(), 15), job.survivors()
    last = job.results()
    assert finished.items() <= last.items()
    assert len(last) > len(finished)
    with Store(f"sqlite:///{job.home / 'netcarve.db'}") as store:
        (row,) = store.jobs.jobs()
        assert store.jobs.state(row.id) is JobState.DONE
        assert len(store.results.bundles(row.id)) == 2
        assert not store.jobs.events(row.id, "failure")
        evaluated = [r.config_key for r in store.results.evaluations(row.id)]
        study = optuna.load_study(study_name=f"{row.id}/cpu-avx2", storage=store.optuna_storage())
        assert sorted(t.user_attrs["config"] for t in study.trials) == sorted(evaluated)
