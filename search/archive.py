"""Folders as deterministic tar files, and their safe extraction."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO

from search.errors import ArtifactError, UnsafeArchiveError


def pack_folder(folder: Path, target: IO[bytes]) -> None:
    """Write a folder's files as an uncompressed tar: equal folders give equal bytes.

    Names are sorted; owner and time are left out; of the mode only the executable bit is kept.

    Raises:
        ArtifactError: not a folder, or it holds a link or a special file.
    """
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is not a folder.")
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).parts):
            name = path.relative_to(folder).as_posix()
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise ArtifactError(f"{path} is neither a plain file nor a folder.")
            member = tarfile.TarInfo(name)
            if path.is_dir():
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(member)
                continue
            found = path.stat()
            member.size, member.mode = found.st_size, 0o755 if found.st_mode & 0o100 else 0o644
            with path.open("rb") as content:
                archive.addfile(member, content)


def unpack_folder(source: IO[bytes], folder: Path) -> None:
    """Extract a tar into an empty folder. Whatever its members are named, nothing else is touched.

    Raises:
        UnsafeArchiveError: not a tar, or a member is not a plain file or folder with a plain
            relative name, or a name comes twice.
    """
    seen: set[tuple[str, ...]] = set()
    try:
        with tarfile.open(fileobj=source, mode="r:") as archive:
            for member in archive:
                parts = _safe_parts(member)
                if parts in seen:
                    raise UnsafeArchiveError(f"the archive names {member.name!r} twice.")
                seen.add(parts)
                path = folder.joinpath(*parts)
                if member.isdir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                assert content is not None, "a regular file has content"
                with content, path.open("xb") as file:
                    shutil.copyfileobj(content, file)
                path.chmod(0o755 if member.mode & 0o100 else 0o644)
    except (tarfile.TarError, EOFError) as error:
        raise UnsafeArchiveError(f"the archive cannot be read: {error}.") from error
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise UnsafeArchiveError(f"two members of the archive collide: {error}.") from error
    except OSError as error:
        raise ArtifactError(f"cannot extract to {folder}: {error}.") from error


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
