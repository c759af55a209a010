"""This machine's processor, as Linux describes it."""

from __future__ import annotations

from pathlib import Path


def processor_name() -> str:
    """Model name of the first processor; "unknown CPU" where Linux does not tell."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "unknown CPU")
