"""Files of one JSON record a line that several processes append to at the same time.

An append is one write under an exclusive `flock`: all of its lines or, when the disk is full, none.
A process that is killed, or a machine that stops, leaves at most a last line without its end;
readers leave it out and the next append removes it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path

from compilers.errors import KernelLibraryError


def append_lines(path: Path, lines: Iterable[bytes]) -> None:
    """Append lines, each ending in a newline, all or none.

    Raises:
        KernelLibraryError: They cannot be written; the file is as before.
    """
    data = b"".join(lines)
    if not data:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        size = _whole_lines(handle)
        try:
            os.ftruncate(handle, size)
            _write(handle, data, size)
            os.fsync(handle)
        except OSError as error:
            os.ftruncate(handle, size)
            raise unwritable(path, error) from error
    finally:
        # Closing releases the lock.
        os.close(handle)


def read_lines(path: Path) -> tuple[list[tuple[int, bytes]], bytes]:
    """(numbered whole lines, a last line without its end or nothing); nothing without a file.

    Raises:
        KernelLibraryError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            # An append by another process is seen whole or not at all.
            fcntl.flock(file, fcntl.LOCK_SH)
            data = file.read()
    except FileNotFoundError:
        return [], b""
    except OSError as error:
        raise KernelLibraryError(f"cannot read {path}: {error.strerror}") from error
    *lines, rest = data.split(b"\n")
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()], rest


def _write(handle: int, data: bytes, offset: int) -> None:
    left = memoryview(data)
    while left:
        # A disk that fills up takes a part first and refuses the rest.
        written = os.pwrite(handle, left, offset)
        offset += written
        left = left[written:]


def _whole_lines(handle: int) -> int:
    """Bytes up to the end of the last whole line."""
    size = os.fstat(handle).st_size
    while size:
        start = max(0, size - 4096)
        block = os.pread(handle, size - start, start)
        if (end := block.rfind(b"\n")) >= 0:
            return start + end + 1
        size = start
    return 0


def unwritable(path: Path, error: OSError) -> KernelLibraryError:
    """What to tell a user when a part of the library cannot be written."""
    return KernelLibraryError(
        f"the kernel library cannot be written: {path}: {error.strerror}; make room, or set "
        "NETCARVE_CACHE to another folder. What was stored before is kept"
    )
