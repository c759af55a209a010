"""Hash of many files: of all their names, sizes and bytes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

from spaces.cache import default_cache
from spaces.files import atomic_write_text, sha256_file
from supernet.errors import DataError

# Less is read again whenever it is asked for.
_REMEMBERED = 1 << 30
# A file that was changed so shortly ago may be changed again within the same tick of its clock.
_SETTLED_NS = 10 * 10**9

_log = logging.getLogger(__name__)


def files_digest(files: Sequence[tuple[str, Path]]) -> str:
    """SHA-256 of the names, the sizes and the content of files, in hexadecimal.

    What lies elsewhere, or was written at another time, has the same hash. Above 1 GiB altogether
    it is remembered in the user's cache folder for as long as no file is replaced or written: each
    one's device, inode, size and times of modification and change are those that it had.

    Args:
        files: Names that do not depend on where the files lie, and their paths.

    Raises:
        DataError: A file cannot be read; the message names it.
    """
    try:
        stats = [path.stat() for _, path in files]
        total = sum(stat.st_size for stat in stats)
        if total <= _REMEMBERED:
            return _digest(files, stats)
        known = default_cache() / "data" / _state(files, stats)
        if (found := _read(known)) is not None:
            return found
        _log.warning(
            "reading %.1f GiB of data to know it again; once, until it changes", total / 2**30
        )
        settled = time.time_ns() - _SETTLED_NS
        digest = _digest(files, stats)
        is_settled = all(max(s.st_mtime_ns, s.st_ctime_ns) < settled for s in stats)
        again = [path.stat() for _, path in files]
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from None
    if is_settled and _state(files, again) == known.name:
        _remember(known, digest)
    return digest


def _digest(files: Sequence[tuple[str, Path]], stats: Sequence[os.stat_result]) -> str:
    digest = hashlib.sha256()
    for (name, path), stat in zip(files, stats, strict=True):
        digest.update(json.dumps([name, stat.st_size, sha256_file(path)]).encode())
    return digest.hexdigest()


def _state(files: Sequence[tuple[str, Path]], stats: Sequence[os.stat_result]) -> str:
    """Hash of what no change of a file's content leaves as it is: a program can set the time of
    modification, but not that of the change of the inode."""
    digest = hashlib.sha256()
    for (name, _), s in zip(files, stats, strict=True):
        state = (name, s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
        digest.update(json.dumps(state).encode())
    return digest.hexdigest()


def _read(path: Path) -> str | None:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError):
        return None
    return text if re.fullmatch("[0-9a-f]{64}", text) else None


def _remember(path: Path, digest: str) -> None:
    try:
        atomic_write_text(path, digest)
    except OSError as error:
        _log.warning("the data will be read again: %s cannot be written: %s", path, error)
