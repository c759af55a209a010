"""Who is a process, and is it still there: identities that survive the reuse of process ids."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process of one boot of one host; `started` tells it from a later one of the same pid."""

    host: str
    pid: int
    started: str


@cache
def host_name() -> str:
    """This host, in this boot and this container: where a process id has one meaning."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8])
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    except OSError:
        pass
    return "/".join(parts)


def start_time(pid: int) -> str:
    """The start time of a live process in clock ticks since boot, "" when that is not known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    # A zombie has ended; only its parent has not yet asked how.
    return "" if fields[0] in {"Z", "X"} else fields[19]


def this_process() -> ProcessId:
    """The identity of the calling process."""
    return ProcessId(host_name(), os.getpid(), start_time(os.getpid()))


def is_gone(process: ProcessId) -> bool:
    """Whether a process is known to have ended. False for a process of another host."""
    if process.host != host_name():
        return False
    if process.started:
        return start_time(process.pid) != process.started
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
