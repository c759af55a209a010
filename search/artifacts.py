"""A content-hashed store of files behind a URL.

An artifact is named by the SHA-256 of its bytes (`sha256:<64 hex digits>`), so that equal content
is stored once, a name never changes its meaning, and every read is verified.
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

from search.archive import pack_folder, unpack_folder
from search.errors import ArtifactError, CorruptArtifactError
from search.home import working_home
from spaces.files import atomic_directory

_REFERENCE = re.compile(r"sha256:([0-9a-f]{64})")
_CHUNK = 1 << 20


class ArtifactStore:
    """Files and folders by content, at any URL that fsspec opens.

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

    def put_bytes(self, data: bytes) -> str:
        """Store bytes; their reference."""
        reference = f"sha256:{hashlib.sha256(data).hexdigest()}"
        with tempfile.SpooledTemporaryFile() as file:
            file.write(data)
            self._upload(file, reference)
        return reference

    def put_file(self, path: str | Path) -> str:
        """Store a file's content; its reference.

        Raises:
            ArtifactError: the file cannot be read, or the store not written.
        """
        try:
            with Path(path).open("rb") as file:
                return self._put_stream(file)
        except OSError as error:
            raise ArtifactError(f"cannot read {path}: {error.strerror or error}.") from error

    def put_folder(self, folder: str | Path) -> str:
        """Store a folder as one deterministic tar; its reference.

        Raises:
            ArtifactError: not a folder, or it holds a link or a special file.
        """
        with tempfile.TemporaryFile() as file:
            pack_folder(Path(folder), file)
            return self._put_stream(file)

    def get_bytes(self, reference: str) -> bytes:
        """The bytes of an artifact.

        Raises:
            ArtifactError: malformed reference, or no such artifact.
            CorruptArtifactError: the stored bytes do not have that hash.
        """
        with tempfile.SpooledTemporaryFile() as file:
            self._download(reference, file)
            file.seek(0)
            return file.read()

    def get_file(self, reference: str, path: str | Path) -> None:
        """Write an artifact to `path`: the whole verified content, or nothing.

        Raises:
            ArtifactError: as `get_bytes`.
        """
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                self._download(reference, file)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def get_folder(self, reference: str, folder: str | Path) -> None:
        """Extract a stored folder as `folder`, replacing one that is there: whole or not at all.

        Raises:
            ArtifactError: as `get_bytes`.
            UnsafeArchiveError: a member would be written outside the folder.
        """
        with tempfile.TemporaryFile() as file:
            self._download(reference, file)
            file.seek(0)
            with atomic_directory(folder) as temporary:
                unpack_folder(file, temporary)

    def exists(self, reference: str) -> bool:
        """Whether the artifact is stored (its content is verified when it is read)."""
        with self._typed_errors():
            return bool(self._filesystem.exists(self._path(reference)))

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
