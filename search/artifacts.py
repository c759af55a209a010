"""A content-hashed store of folders behind a URL.

An artifact is a folder, stored as one deterministic tar and named by the SHA-256 of its bytes
(`sha256:<64 hex digits>`), so that equal content is stored once, a name never changes its meaning,
and every read is verified.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from search.errors import ArtifactError, CorruptArtifactError
from search.home import working_home
from spaces.archive import pack_folder, unpack_folder
from spaces.errors import ArchiveError, UnsafeArchiveError
from spaces.files import atomic_directory

_REFERENCE = re.compile(r"sha256:([0-9a-f]{64})")
_CHUNK = 1 << 20


class ArtifactStore:
    """Folders by content, at any URL that fsspec opens.

    Args:
        url: For example `s3://bucket/folder`, a local folder, or None for `artifacts` in the
            working home.

    Raises:
        ArtifactError: the URL's protocol is unknown or its package is not installed.
    """

    def __init__(self, url: str | None = None) -> None:
        import fsspec

        self.url = url or str(working_home() / "artifacts")
        try:
            filesystem, root = fsspec.core.url_to_fs(self.url)
        except (ValueError, ImportError, OSError) as error:
            raise ArtifactError(
                f"cannot use {self.url!r} for artifacts: {error}. Give a folder or an fsspec URL."
            ) from error
        self._filesystem: Any = filesystem
        self._root = str(root).rstrip("/")

    def put_folder(self, folder: str | Path) -> str:
        """Store a folder as one deterministic tar; its reference.

        Raises:
            ArtifactError: not a folder, or it holds a link or a special file.
        """
        with tempfile.TemporaryFile() as file:
            try:
                pack_folder(Path(folder), file)
            except ArchiveError as error:
                raise ArtifactError(f"cannot store {folder}: {error}") from error
            return self._put_stream(file)

    def get_folder(self, reference: str, folder: str | Path) -> None:
        """Extract a stored folder as `folder`, replacing one that is there: whole or not at all.

        Raises:
            ArtifactError: malformed reference, no such artifact, or the folder cannot be written.
            CorruptArtifactError: the stored bytes do not have that hash, or are no folder that can
                be extracted safely.
        """
        with tempfile.TemporaryFile() as file:
            self._download(reference, file)
            file.seek(0)
            try:
                with atomic_directory(folder) as temporary:
                    unpack_folder(file, temporary)
            except UnsafeArchiveError as error:
                raise CorruptArtifactError(f"the artifact {reference}: {error}") from error
            except ArchiveError as error:
                raise ArtifactError(str(error)) from error

    def _path(self, reference: str) -> str:
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            raise ArtifactError(
                f"{reference!r} is not an artifact reference: sha256: and 64 hexadecimal digits."
            )
        digest = match[1]
        return f"{self._root}/sha256/{digest[:2]}/{digest[2:]}"

    def _put_stream(self, file: IO[bytes]) -> str:
        file.seek(0)
        reference = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"  # type: ignore[arg-type]
        self._upload(file, reference)
        return reference

    def _upload(self, file: IO[bytes], reference: str) -> None:
        path = self._path(reference)
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        with self._typed_errors():
            # A content of another length is a damaged one: it is replaced.
            if self._filesystem.exists(path) and self._filesystem.size(path) == size:
                return
            temporary = f"{self._root}/temporary/{uuid.uuid4().hex}"
            try:
                self._filesystem.makedirs(f"{self._root}/temporary", exist_ok=True)
                self._filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
                with self._filesystem.open(temporary, "wb") as target:
                    shutil.copyfileobj(file, target, _CHUNK)
                    if _is_local(self._filesystem):
                        target.flush()
                        os.fsync(target.fileno())
                self._move(temporary, path)
            except BaseException:
                if self._filesystem.exists(temporary):
                    self._filesystem.rm_file(temporary)
                raise

    def _move(self, temporary: str, path: str) -> None:
        if _is_local(self._filesystem):
            Path(temporary).replace(path)
        else:
            self._filesystem.mv(temporary, path)

    def _download(self, reference: str, target: IO[bytes]) -> None:
        path, digest = self._path(reference), hashlib.sha256()
        with self._typed_errors():
            try:
                with self._filesystem.open(path, "rb") as source:
                    while chunk := source.read(_CHUNK):
                        digest.update(chunk)
                        target.write(chunk)
            except FileNotFoundError as error:
                raise ArtifactError(f"{self.url} holds no artifact {reference}.") from error
        if f"sha256:{digest.hexdigest()}" != reference:
            raise CorruptArtifactError(
                f"the artifact {reference} in {self.url} is damaged: its content has the hash "
                f"sha256:{digest.hexdigest()}. Delete it and store it again."
            )

    @contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ArtifactError(f"cannot use the artifacts in {self.url}: {error}.") from error


def _is_local(filesystem: Any) -> bool:
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(filesystem, LocalFileSystem)
