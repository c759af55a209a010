from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from compilers.devices.host_built import executable
from compilers.errors import BuildError, ChildCrashError, ChildTimeoutError, MeasurementError
from compilers.isolation import ChildBug, Worker
from compilers.worker import _failure
from spaces.errors import NetcarveError

ROOT = Path(__file__).resolve().parents[2]


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def long_request(builds):
    return {
        "entries": [executable(builds["fp32"])],
        "config": {"min_repeats": 10**6, "max_repeats": 10**6},
    }


def test_errors_of_the_child_arrive_with_their_message(tmp_path):
    sample = tmp_path / "x.npy"
    np.save(sample, np.zeros((1, 1, 12, 12), np.float32))
    absent = {
        "library": "/nowhere/x.so",
        "input_dtype": "float32",
        "output_shape": [1, 10],
        "input": str(sample),
        "output": "",
    }
    with Worker("runtime", MeasurementError) as worker:
        with pytest.raises(MeasurementError, match="nowhere"):
            worker.request("run", absent, 60)
        pid = worker.pid
        with pytest.raises(ChildBug, match=r"Traceback[\s\S]*KeyError"):
            worker.request("run", {}, 60)
        assert worker.pid == pid, "an error is no reason for a new child"
    assert not issubclass(ChildBug, NetcarveError)
    assert pid is not None
    assert not alive(pid)


@pytest.mark.parametrize(
    ("error", "bug"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), False),
        (MemoryError("1 TiB"), False),
        (ModuleNotFoundError("No module named 'tvm'"), False),
        (BuildError("no linker"), False),
        (OSError(errno.ENOENT, "No such file or directory"), True),
        (AssertionError(""), True),
        (RuntimeError("InternalError: Check failed"), True),
    ],
)
def test_what_the_machine_or_the_user_caused_is_no_bug(error, bug):
    assert ("bug" in _failure(error)) is bug


@pytest.mark.parametrize("path", ["", ".:", ":"])
def test_a_folder_of_the_same_name_where_the_user_stands_is_not_imported(
    tmp_path, monkeypatch, path
):
    (tmp_path / "compilers").mkdir()
    for name in ("__init__", "worker"):
        (tmp_path / "compilers" / f"{name}.py").write_text("raise SystemExit('the decoy ran')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", path)
    with Worker("runtime", MeasurementError) as worker, pytest.raises(ChildBug, match="KeyError"):
        worker.request("run", {}, 60)


@pytest.mark.slow
def test_a_crash_is_an_error_and_the_next_request_gets_a_new_child(builds):
    with Worker("runtime", BuildError) as worker:
        with pytest.raises(ChildBug, match="KeyError"):
            worker.request("run", {}, 60)
        first = worker.pid
        assert first is not None
        threading.Timer(1.0, os.kill, (first, signal.SIGSEGV)).start()
        with pytest.raises(ChildCrashError, match="SIGSEGV") as caught:
            worker.request("time", long_request(builds), 60)
        assert caught.value.signal == signal.SIGSEGV
        # Ray brings it home from its workers.
        assert pickle.loads(pickle.dumps(caught.value)).signal == signal.SIGSEGV
        with pytest.raises(ChildBug, match="KeyError"):
            worker.request("run", {}, 60)
        assert worker.pid not in (None, first)


@pytest.mark.slow
def test_a_request_that_takes_too_long_ends_its_child(builds):
    with Worker("runtime", BuildError) as worker:
        with pytest.raises(ChildBug, match="KeyError"):
            worker.request("run", {}, 60)
        pid = worker.pid
        assert pid is not None
        start = time.monotonic()
        with pytest.raises(ChildTimeoutError, match=r"longer than 1 s"):
            worker.request("time", long_request(builds), 1.0)
        assert time.monotonic() - start < 10
        assert not alive(pid)


@pytest.mark.slow
@pytest.mark.parametrize("busy", [False, True])
def test_the_child_dies_with_its_parent(builds, busy):
    script = f"""
import sys
from compilers.errors import BuildError
from compilers.isolation import ChildBug, Worker
worker = Worker("runtime", BuildError)
try:
    worker.request("run", {{}}, 60)
except ChildBug:
    pass
print(worker.pid, flush=True)
if {busy}:
    worker.request("time", {long_request(builds)!r}, 600)
sys.stdin.read()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(1.0 if busy else 0.0)
    assert alive(child)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)
    for pipe in (parent.stdin, parent.stdout):
        assert pipe is not None
        pipe.close()


def test_the_child_is_pinned():
    cpu = max(os.sched_getaffinity(0))
    with Worker("runtime", BuildError, cpus=(cpu,)) as worker:
        with pytest.raises(ChildBug, match="KeyError"):
            worker.request("run", {}, 60)
        assert worker.pid is not None
        assert os.sched_getaffinity(worker.pid) == {cpu}
