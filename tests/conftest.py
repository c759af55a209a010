"""What every test finds."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# A shell that starts the tests in the background has them ignore Ctrl-C, and their children with
# them; the tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the processors: more threads each would wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def runtime_dir() -> Iterator[Path]:
    """A runtime folder of the test session's own: no other worker, and no job of the user on this
    host, holds its host lock.
    """
    # A short path: Ray's sockets lie below it.
    folder = Path(tempfile.mkdtemp(prefix="nc", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETCARVE_RUNTIME_DIR", str(folder))
        yield folder
    shutil.rmtree(folder, ignore_errors=True)
