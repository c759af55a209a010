"""kill -9 at any time: the same command finishes, nothing finished is lost or done again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from search.host_lock import HostLock
from search.models import JobState
from search.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

COMMAND = "from cli.main import main; main()"
# What the job is doing, by the purpose that it gives when it takes the host's lock.
STAGES = ("training", "accuracy evaluation", "measurement")


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


def test_killed_job_finishes_with_the_same_command(tmp_path, runtime_dir, tiny_job):
    job = Job(tmp_path, runtime_dir, tiny_job)
    finished: dict[tuple[str, ...], tuple[float, int]] = {}
    for stage in STAGES:
        for group in (True, False):
            process = job.start()
            reached = wait_for(
                lambda stage=stage: any(h.purpose.startswith(stage) for h in job.lock.holders()),
                120,
            )
            assert reached, f"never reached {stage}: {job.log.read_text()[-2000:]}"
            assert process.poll() is None
            (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
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
