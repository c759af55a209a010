"""Hash of many files: of all their bytes, or of a part of them when they are too many."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from supernet.errors import DataError

_ALL_BYTES = 1 << 30
_FILES = 4096
_PART = 1 << 16


def files_digest(files: Sequence[tuple[str, Path]]) -> str:
    """SHA-256 of the names, the sizes and the content of files, in hexadecimal.

    Above 1 GiB altogether not every byte counts, but the names and sizes of all files, and the
    first and the last 64 KiB of 4096 of them, evenly spread. What lies elsewhere, or was written
    at another time, has the same hash.

    Args:
        files: Names that do not depend on where the files lie, and their paths.

    Raises:
        DataError: A file cannot be read; the message names it.
    """
    digest = hashlib.sha256()
    try:
        sizes = [path.stat().st_size for _, path in files]
        is_whole = sum(sizes) <= _ALL_BYTES
        step = 1 if is_whole else max(1, len(files) // _FILES)
        for number, ((name, path), size) in enumerate(zip(files, sizes, strict=True)):
            content = _hash(path, size, is_whole) if number % step == 0 else None
            digest.update(json.dumps([name, size, content]).encode())
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from None
    return digest.hexdigest()


def _hash(path: Path, size: int, is_whole: bool) -> str:
    with path.open("rb") as file:
        if is_whole:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256(file.read(_PART))
        file.seek(max(0, size - _PART))
        digest.update(file.read(_PART))
        return digest.hexdigest()
