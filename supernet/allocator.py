"""Memory that a training step frees stays with the process until the next one needs it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT = 2**31 - 1
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # glibc's limit on 64-bit machines
_DEFAULT = 128 * 2**10


@contextmanager
def kept_memory() -> Iterator[None]:
    """Within it, glibc does not hand freed memory back to the system.

    A step frees all its maps, and getting the same pages again in the next one, a page fault each,
    costs several per cent of the time on a CPU. At the end, what is free is handed back. Does
    nothing with another C library.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(_TRIM_THRESHOLD, _KEPT)
    libc.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    try:
        yield
    finally:
        libc.mallopt(_TRIM_THRESHOLD, _DEFAULT)
        libc.mallopt(_MMAP_THRESHOLD, _DEFAULT)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, ValueError, OSError):
        return None
    return ctypes.CDLL(None) if version and version.startswith("glibc") else None
