"""The host lock between real processes: exclusion, release by death, no starvation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from search.errors import HostLockError, HostLockTimeoutError, SearchError
from search.home import runtime_folder
from search.host_lock import Holder, HostLock

# They wait for fractions of a second.
pytestmark = pytest.mark.alone

ROOT = Path(__file__).resolve().parents[2]

HOLDING = """
import sys, time
from pathlib import Path
from search.host_lock import HostLock
with getattr(HostLock(Path(sys.argv[1])), sys.argv[2])("holding " + sys.argv[2], timeout=10):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def another_process(folder: Path, mode: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDING, str(folder), mode]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def lock(tmp_path: Path) -> HostLock:
    return HostLock(tmp_path)


@pytest.mark.parametrize(
    ("theirs", "ours", "free"),
    [
        ("shared", "shared", True),
        ("shared", "exclusive", False),
        ("exclusive", "shared", False),
        ("exclusive", "exclusive", False),
    ],
)
def test_a_measurement_is_alone(
    lock: HostLock, tmp_path: Path, theirs: str, ours: str, free: bool
) -> None:
    with another_process(tmp_path, theirs) as process:
        expected = rf"held by process {process.pid} \(holding {theirs}, {theirs}, for 0 s\)"
        with ExitStack() as stack:
            if not free:
                stack.enter_context(pytest.raises(HostLockTimeoutError, match=expected))
            stack.enter_context(getattr(lock, ours)("measuring", timeout=0.2))
        process.kill()
        process.wait()
        with getattr(lock, ours)("measuring", timeout=0.5):
            assert [holder.process.pid for holder in lock.holders()] == [os.getpid()]
    assert lock.holders() == ()


def test_a_stopped_process_keeps_the_lock_and_a_killed_one_does_not(
    lock: HostLock, tmp_path: Path
) -> None:
    with another_process(tmp_path, "exclusive") as process:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(HostLockTimeoutError), lock.shared("training", timeout=0.2):
            pass
        process.kill()
        with lock.shared("training", timeout=2):
            pass


def test_who_waits_is_told_who_holds_it(
    lock: HostLock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.host_lock._REPORT_EVERY_S", 0.3)
    reports: list[tuple[tuple[Holder, ...], float]] = []
    with (
        another_process(tmp_path, "shared") as process,
        pytest.raises(HostLockTimeoutError),
        lock.exclusive("measuring", timeout=1.8, on_wait=lambda *told: reports.append(told)),
    ):
        pass
    assert 2 <= len(reports) <= 4
    holders, waited = reports[0]
    assert [(h.process.pid, h.mode, h.purpose) for h in holders] == [
        (process.pid, "shared", "holding shared")
    ]
    assert 1.0 <= waited < 1.5


def test_threads_exclude_each_other_and_a_thread_not_itself(lock: HostLock) -> None:
    entered: list[float] = []

    def train() -> None:
        with lock.shared("training", timeout=10):
            entered.append(time.monotonic())

    with lock.exclusive("measuring"):
        with lock.shared("compiling"), lock.exclusive("again"):
            pass
        assert [holder.mode for holder in lock.holders()] == ["exclusive"], "still held"
        thread = threading.Thread(target=train)
        thread.start()
        time.sleep(0.2)
        left = time.monotonic()
        assert not entered
    thread.join()
    assert entered[0] >= left

    with lock.shared("training"):
        with HostLock(lock._folder.parent).shared("evaluating"):
            pass
        with pytest.raises(HostLockError, match="leave it first"), lock.exclusive("measuring"):
            pass
    with lock.exclusive("measuring", timeout=0.2):
        pass


def test_an_error_inside_releases_it(lock: HostLock, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="boom"), lock.exclusive("measuring"):
        raise ValueError("boom")
    with another_process(tmp_path, "exclusive"):
        pass


def test_a_forked_child_does_not_keep_it(lock: HostLock, tmp_path: Path) -> None:
    with lock.exclusive("measuring"):
        child = os.fork()
        if child == 0:
            time.sleep(300)
            os._exit(0)
    try:
        with another_process(tmp_path, "exclusive"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


BUSY = """
import sys, time
from pathlib import Path
from search.host_lock import HostLock
lock = HostLock(Path(sys.argv[1]))
print("busy", flush=True)
while True:
    with lock.shared("training"):
        time.sleep(0.15)
"""


def test_a_measurement_is_not_starved_by_overlapping_work(lock: HostLock, tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUSY, str(tmp_path)]
    workers = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "busy\n"
        for _ in range(5):
            with lock.exclusive("measuring", timeout=3.0):
                assert [holder.mode for holder in lock.holders()] == ["exclusive"]
            time.sleep(0.05)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


COUNTING = """
import sys
from pathlib import Path
from search.host_lock import HostLock
lock, path = HostLock(Path(sys.argv[1])), Path(sys.argv[1]) / "count"
for _ in range(50):
    with lock.exclusive("counting"):
        path.write_text(str(int(path.read_text()) + 1))
"""


def test_exclusive_sections_never_overlap(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    command = [sys.executable, "-c", COUNTING, str(tmp_path)]
    processes = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
    for process in processes:
        assert process.wait(timeout=60) == 0
    assert (tmp_path / "count").read_text() == "150"


def test_the_runtime_folder_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "runtime"
    monkeypatch.setenv("NETCARVE_RUNTIME_DIR", str(folder))
    assert runtime_folder() == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setenv("NETCARVE_RUNTIME_DIR", str(tmp_path / "link"))
    with pytest.raises(SearchError, match="not a folder of this user"):
        runtime_folder()
    (tmp_path / "file").touch()
    monkeypatch.setenv("NETCARVE_RUNTIME_DIR", str(tmp_path / "file"))
    with pytest.raises(SearchError, match="NETCARVE_RUNTIME_DIR"):
        runtime_folder()
