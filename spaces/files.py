"""Atomic writes: a reader sees the old file or the new one, never a part of one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TEMPORARY = ".tmp"
_ABANDONED_SECONDS = 3600.0


def atomic_write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` under a temporary name in the same folder, then rename it to `path`."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def atomic_write_text(path: str | Path, text: str) -> None:
    """`atomic_write_bytes` of UTF-8 text."""
    atomic_write_bytes(path, text.encode())


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes `path` when the block ends without an error.

    An existing folder at `path` is replaced; on an error or interrupt it is left as it was. Of
    several processes that write one folder the last one wins. What killed processes left beside
    it is removed after an hour.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(_TEMPORARY, f".{target.name}.", target.parent))
    temporary.chmod(0o755)
    try:
        yield temporary
        _replace(target, temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    left = rf"\.{re.escape(target.name)}\.[a-z0-9_]{{8}}{re.escape(_TEMPORARY)}"
    remove_abandoned(target.parent, re.compile(left))


def _replace(target: Path, new: Path) -> None:
    """Rename `new` to `target`; what was there goes, but comes back when this fails."""
    while True:
        with tempfile.TemporaryDirectory(
            _TEMPORARY, f".{target.name}.", target.parent, ignore_cleanup_errors=True
        ) as aside:
            old = Path(aside) / target.name
            try:
                # A folder cannot be renamed over a filled one.
                with contextlib.suppress(FileNotFoundError):
                    target.rename(old)
                new.rename(target)
            except BaseException as error:
                if not os.path.lexists(target):
                    # Nothing was there, or another process is quicker.
                    with contextlib.suppress(OSError):
                        old.rename(target)
                if getattr(error, "errno", None) not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
            else:
                return


def remove_abandoned(folder: Path, temporary: re.Pattern[str]) -> None:
    """Remove what processes left in `folder` that were killed more than an hour ago.

    Args:
        folder: Where they wrote.
        temporary: What the names of their temporary folders are.
    """
    for path in folder.iterdir():
        if not temporary.fullmatch(path.name):
            continue
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def sha256_bytes(data: bytes) -> str:
    """The SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | Path) -> str:
    """The SHA-256 of a file's content in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
