"""What every test finds."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# A shell that starts the tests in the background has them ignore Ctrl-C, and their children with
# them; the tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the processors: more threads each would wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

_SHARING = {
    "a job, run from its start to its bundles": (
        "search/test_loop.py", "search/test_replay.py",
    ),
    "compiled subnets and their executable": (
        "compilers/test_build.py", "compilers/test_bundle.py", "compilers/test_isolation.py",
        "compilers/test_native.py", "compilers/test_runner.py", "compilers/test_tokens.py",
        "compilers/devices/test_emulated.py", "compilers/devices/test_local.py",
        "compilers/devices/test_rpc.py",
    ),
    "a trained supernet": (
        "supernet/test_evaluate.py", "supernet/test_importance.py",
    ),
}  # fmt: skip
"""Files that use one session fixture that takes long to make, by what it is."""

_SHARED = {f"tests/{file}": name for name, files in _SHARING.items() for file in files}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Workers take whole files, as `--dist loadfile` says, and all files that share a fixture."""
    from xdist.scheduler import LoadFileScheduling

    class LoadSharing(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return _SHARED.get(file, file)

    return LoadSharing(config, log) if config.getvalue("dist") == "loadfile" else None


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
