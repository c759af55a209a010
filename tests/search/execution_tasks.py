"""What the tests of `search.execution` run in Ray workers."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path


def square(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def square_unless_three(number: int) -> int:
    if number == 3:
        raise ValueError("three is not allowed")
    return number * number


def sleep_then_name(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def die_first(item: tuple[str, int]) -> int:
    """Kill the worker on the first attempts, as many as asked; then answer how many there were."""
    folder, deaths = Path(item[0]), item[1]
    attempt = len(list(folder.iterdir()))
    (folder / str(attempt)).touch()
    if attempt < deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return attempt + 1


def session_facts(_: int) -> dict[str, str | None]:
    return {
        "usage": os.environ.get("RAY_USAGE_STATS_ENABLED"),
        "log": str(Path("/proc/self/fd/1").readlink()),
    }


def hold_with_child(folder: str) -> None:
    """Start a child that ignores hang-ups, say so, and never end."""
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    (Path(folder) / f"{os.getpid()}.{child.pid}").touch()
    time.sleep(600)
