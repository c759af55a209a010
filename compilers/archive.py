"""Deterministic .tar.gz files of flat folders, and reading them without trusting them."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from zlib import error as ZlibError

from compilers.errors import BundleError
from spaces.files import atomic_directory, atomic_write_bytes

MAX_FILES = 64
MAX_BYTES = 1 << 30


def write_archive(folder: Path, path: Path) -> None:
    """Pack the files of `folder` into `path` under the folder's name.

    Equal contents give equal bytes: names are sorted, times, owners and modes are fixed.
    """
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for file in sorted(folder.iterdir()):
            data = file.read_bytes()
            member = tarfile.TarInfo(f"{folder.name}/{file.name}")
            member.size, member.mode, member.mtime = len(data), 0o644, 0
            archive.addfile(member, io.BytesIO(data))
    atomic_write_bytes(path, gzip.compress(plain.getvalue(), mtime=0))


def extract_archive(path: Path, folder: Path) -> None:
    """Unpack an archive of one flat folder into `folder`, replacing it.

    Names are never used as paths: every member must be a regular file `NAME/FILE` with the same
    NAME, and lands as FILE inside `folder`.

    Raises:
        BundleError: The archive is damaged, too large, or holds anything else.
    """
    try:
        with tarfile.open(path, mode="r:gz") as archive, atomic_directory(folder) as target:
            _extract(archive, path, target)
    except (OSError, EOFError, tarfile.TarError, ZlibError) as error:
        raise BundleError(f"{path}: not a readable bundle archive: {error}") from error


def _extract(archive: tarfile.TarFile, path: Path, target: Path) -> None:
    top: str | None = None
    count, total = 0, 0
    for member in archive:
        parts = member.name.split("/")
        top = top or parts[0]
        count, total = count + 1, total + member.size
        if count > MAX_FILES or total > MAX_BYTES:
            raise BundleError(f"{path}: larger than a bundle may be")
        unsafe = any(part in ("", ".", "..") or {"\\", "\0"} & set(part) for part in parts)
        if not member.isreg() or len(parts) != 2 or parts[0] != top or unsafe:
            raise BundleError(f"{path}: member {member.name!r} does not belong into a bundle")
        source = archive.extractfile(member)
        assert source is not None
        (target / parts[1]).write_bytes(source.read())
    if count == 0:
        raise BundleError(f"{path}: empty archive")
