"""This machine's processors, as Linux describes them."""

from __future__ import annotations

import os
from pathlib import Path

from compilers.errors import DeviceError


def processor_name() -> str:
    """Model name of the first processor; "unknown CPU" where Linux does not tell."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "unknown CPU")


def last_processors(threads: int, who: str) -> tuple[int, ...]:
    """A processor for each of so many threads: the last ones that this process may use, because
    interrupts and daemons prefer the first.

    Args:
        threads: How many.
        who: Wants them; for the message.

    Raises:
        DeviceError: There are fewer, or `threads` is below 1.
    """
    cpus = sorted(os.sched_getaffinity(0))
    if not 1 <= threads <= len(cpus):
        raise DeviceError(
            f"{who}: threads is {threads}; allowed: 1 to {len(cpus)}, the number of processors"
        )
    return tuple(cpus[-threads:])
