"""A small process that outlives its owner for a moment and ends what the owner left behind.

Ray binds its servers to the driver's life (`PR_SET_PDEATHSIG`), but not its agents, which stay for
up to a minute after a `kill -9`, nor what a worker has started. Run as a script of its own, with
the standard library only: `watchdog.py FOLDER TOKEN OWNER_PID`; standard input is a pipe from the
owner, which writes `q` before it closes it in good order.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path

_POLL_S = 0.25
_SWEEP_S = 30.0


def belongs(pid: int, folder: str, token: str, *, open_files: bool) -> bool:
    """Whether a process was started by the session of that folder and token.

    By its environment, its command line or, with `open_files`, by a file that it has open in the
    folder: Ray's Python processes overwrite the first two with their title.
    """
    proc = Path(f"/proc/{pid}")
    try:
        if proc.stat().st_uid != os.getuid():
            return False
        if token.encode() in (proc / "environ").read_bytes():
            return True
        if f"{folder}/".encode() in (proc / "cmdline").read_bytes():
            return True
        if not open_files:
            return False
        links = [link.readlink() for link in (proc / "fd").iterdir()]
    except OSError:
        return False
    return any(str(link).startswith(f"{folder}/") for link in links)


def session_processes(folder: str, token: str, owner: int, *, open_files: bool) -> list[int]:
    """The process ids of a session, without its owner and the caller."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    others = [pid for pid in pids if pid not in {owner, os.getpid()}]
    return [pid for pid in others if belongs(pid, folder, token, open_files=open_files)]


def sweep(folder: str, token: str, owner: int, *, open_files: bool) -> None:
    """Kill a session's processes until none is left, also those that start meanwhile."""
    deadline, empty = time.monotonic() + _SWEEP_S, 0
    while empty < 3 and time.monotonic() < deadline:
        found = session_processes(folder, token, owner, open_files=open_files)
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        empty = 0 if found else empty + 1
        time.sleep(0.05)


def _wait_for_owner(owner: int) -> bool:
    """Wait until the owner closes the pipe or is dead; whether it left in good order."""
    orderly = False
    while os.getppid() == owner:
        # The pipe alone is not enough: a forked child of the owner may hold its other end.
        if select.select([0], [], [], _POLL_S)[0]:
            data = os.read(0, 1)
            if not data:
                break
            orderly = True
    return orderly


def main(folder: str, token: str, owner: int) -> None:
    """Wait for the owner's end, then leave no process and no file of the session."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    orderly = _wait_for_owner(owner)
    # After good order a live owner may have forked children that hold its open files: not ours.
    sweep(folder, token, owner, open_files=not orderly)
    shutil.rmtree(folder, ignore_errors=True)
    Path(f"{folder}.lock").unlink(missing_ok=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
