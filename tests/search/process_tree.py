"""The processes below one, and what they listen to; Linux alone."""

from __future__ import annotations

import contextlib
from pathlib import Path

# 127.0.0.1, as itself and as an IPv6 address, in the kernel's notation.
LOOPBACK = ("0100007F:", "0000000000000000FFFF00000100007F:")


def descendants(root: int) -> set[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found, frontier = set(), {root}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier} - found
        found |= frontier
    return found


def open_sockets(pids: set[int]) -> set[str]:
    """The sockets of processes, as `socket:[INODE]`."""
    found = set()
    for pid in pids:
        try:
            links = list(Path(f"/proc/{pid}/fd").iterdir())
        except OSError:
            continue
        for link in links:
            with contextlib.suppress(OSError):
                found.add(str(link.readlink()))
    return {name for name in found if name.startswith("socket:")}


def listening_addresses(pids: set[int]) -> list[str]:
    """Where processes listen, ADDRESS:PORT in the kernel's notation."""
    sockets = open_sockets(pids)
    return [
        line.split()[1]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and f"socket:[{line.split()[9]}]" in sockets
    ]
