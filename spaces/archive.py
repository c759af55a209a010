"""Folders as deterministic tar files, and reading such files without trusting them."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from spaces.errors import ArchiveError, UnsafeArchiveError


class Limits(NamedTuple):
    """The most that an archive may hold: members, and bytes of their contents together."""

    members: int
    bytes: int


def pack_folder(folder: Path, target: IO[bytes], top: str = "") -> None:
    """Write a folder's files as a tar: equal folders give equal bytes.

    Names are sorted; owner and time are left out; of the mode only the executable bit is kept.

    Args:
        folder: The folder.
        target: Receives the tar; give a compressing file for a compressed one.
        top: Name of a folder inside the archive that everything is put into; none when empty.

    Raises:
        ArchiveError: Not a folder, or it holds a link or a special file.
    """
    if not folder.is_dir():
        raise ArchiveError(f"{folder} is not a folder.")
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).parts):
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise ArchiveError(f"{path} is neither a plain file nor a folder.")
            member = tarfile.TarInfo(str(PurePosixPath(top, path.relative_to(folder).as_posix())))
            if path.is_dir():
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(member)
                continue
            found = path.stat()
            member.size, member.mode = found.st_size, 0o755 if found.st_mode & 0o100 else 0o644
            with path.open("rb") as content:
                archive.addfile(member, content)


def unpack_folder(
    source: IO[bytes] | gzip.GzipFile,
    folder: Path,
    *,
    one_top: bool = False,
    limits: Limits | None = None,
) -> None:
    """Extract a tar into an empty folder. Whatever its members are named, nothing else is touched.

    Args:
        source: The tar; give a decompressing file for a compressed one.
        folder: The folder, which stays as far as it came when an error is raised.
        one_top: The archive must be one folder of plain files; its name is left out.
        limits: What it may hold; checked before a member is read.

    Raises:
        UnsafeArchiveError: Not a tar, or a member is not a plain file or folder with a plain
            relative name, or a name comes twice, or it is larger than allowed.
        ArchiveError: The folder cannot be written.
    """
    seen: set[tuple[str, ...]] = set()
    tops: set[str] = set()
    size = 0
    try:
        with tarfile.open(fileobj=source, mode="r:") as archive:
            for member in archive:
                parts = _safe_parts(member)
                size += member.size
                if limits is not None and (len(seen) >= limits.members or size > limits.bytes):
                    raise UnsafeArchiveError(
                        f"the archive is larger than {limits.members} members and "
                        f"{limits.bytes} bytes."
                    )
                if parts in seen:
                    raise UnsafeArchiveError(f"the archive names {member.name!r} twice.")
                seen.add(parts)
                if one_top:
                    tops.add(parts[0])
                    if len(parts) != 2 or len(tops) > 1 or member.isdir():
                        raise UnsafeArchiveError(
                            f"the archive's member {member.name!r} does not belong there: "
                            "all must be plain files in one folder."
                        )
                    parts = parts[1:]
                _extract(archive, member, folder.joinpath(*parts))
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UnsafeArchiveError(f"the archive cannot be read: {error}.") from error
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise UnsafeArchiveError(f"two members of the archive collide: {error}.") from error
    except OSError as error:
        raise ArchiveError(f"cannot extract to {folder}: {error}.") from error


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    content = archive.extractfile(member)
    assert content is not None, "a regular file has content"
    with content, path.open("xb") as file:
        shutil.copyfileobj(content, file)
    path.chmod(0o755 if member.mode & 0o100 else 0o644)


def _safe_parts(member: tarfile.TarInfo) -> tuple[str, ...]:
    name = member.name
    # No links at all: a link followed by a member "below" it is the usual way out of a folder.
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise UnsafeArchiveError(f"the archive's member {name!r} is not a plain file or folder.")
    path = PurePosixPath(name)
    unsafe = path.is_absolute() or ".." in path.parts or not path.parts
    if unsafe or "\\" in name or "\0" in name or ":" in path.parts[0]:
        raise UnsafeArchiveError(f"the archive's member {name!r} would leave its folder.")
    return path.parts
