"""The data caches of this machine's processor, as Linux describes them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

_SYSFS = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True, slots=True)
class Cache:
    """One cache that holds data.

    Attributes:
        level: 1 is next to the core.
        bytes: Capacity, whoever else shares it.
    """

    level: int
    bytes: int


TYPICAL = (Cache(1, 32 << 10), Cache(2, 512 << 10), Cache(3, 16 << 20))
"""What is assumed where Linux does not tell, as in some containers."""


def data_caches(folder: Path = _SYSFS) -> tuple[Cache, ...]:
    """Caches of the first processor that hold data, the smallest first; `TYPICAL` if unknown.

    Args:
        folder: Where Linux describes them, one `index*` folder each.
    """
    found: dict[int, int] = {}
    for entry in folder.glob("index*"):
        # What cannot be read is not described here.
        with contextlib.suppress(OSError, ValueError):
            if (entry / "type").read_text().strip() in ("Data", "Unified"):
                size = (entry / "size").read_text().strip()
                digits = size.rstrip("".join(_UNITS))
                found[int((entry / "level").read_text())] = int(digits) * _UNITS.get(size[-1], 1)
    return tuple(Cache(level, size) for level, size in sorted(found.items())) or TYPICAL
