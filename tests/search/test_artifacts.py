"""Artifacts keep their content, whatever happens."""

from __future__ import annotations

import hashlib
import io
import os
import uuid
from pathlib import Path

import pytest

from search.artifacts import ArtifactStore
from search.errors import ArtifactError, CorruptArtifactError
from spaces.errors import CorruptFileError
from spaces.files import sha256_file


@pytest.fixture(params=["folder", "memory"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    if request.param == "folder":
        return ArtifactStore(str(tmp_path / "artifacts"))
    return ArtifactStore(f"memory://{uuid.uuid4().hex}/artifacts")


def stored_files(artifacts: ArtifactStore) -> list[str]:
    return sorted(artifacts._filesystem.find(artifacts._root))


def make_folder(folder: Path, names: list[str]) -> Path:
    (folder / "empty").mkdir(parents=True)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o750)
    return folder


def put_bytes(artifacts: ArtifactStore, data: bytes) -> str:
    """Store what no folder would yield."""
    return artifacts._put_stream(io.BytesIO(data))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "folder", ["weights"])


def test_a_reference_is_the_hash_of_the_content(artifacts: ArtifactStore, folder: Path) -> None:
    (folder / "large").write_bytes(os.urandom(3_000_000))
    reference = artifacts.put_folder(folder)
    (path,) = stored_files(artifacts)
    content = artifacts._filesystem.cat_file(path)
    assert reference == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert artifacts.put_folder(folder) == reference
    assert stored_files(artifacts) == [path], "one content, and no temporary file"


def test_a_damaged_artifact_is_never_handed_out(
    artifacts: ArtifactStore, folder: Path, tmp_path: Path
) -> None:
    reference = artifacts.put_folder(folder)
    (path,) = stored_files(artifacts)
    content = artifacts._filesystem.cat_file(path)
    artifacts._filesystem.pipe_file(path, content.replace(b"content of", b"c0ntent of"))
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(CorruptArtifactError, match="damaged"):
        artifacts.get_folder(reference, target)
    with pytest.raises(CorruptArtifactError, match="damaged"):
        artifacts.get_folder(reference, tmp_path / "new")
    assert issubclass(CorruptArtifactError, CorruptFileError)
    assert [item.name for item in target.iterdir()] == ["old"]
    assert not (tmp_path / "new").exists()
    assert [item.name for item in tmp_path.iterdir() if item.name.startswith(".")] == []


def test_a_truncated_artifact_is_healed_by_storing_it_again(
    artifacts: ArtifactStore, folder: Path, tmp_path: Path
) -> None:
    reference = artifacts.put_folder(folder)
    (path,) = stored_files(artifacts)
    artifacts._filesystem.pipe_file(path, b"con")
    assert artifacts.put_folder(folder) == reference
    artifacts.get_folder(reference, tmp_path / "target")
    assert (tmp_path / "target" / "weights").read_text() == "content of weights"


def test_a_failed_upload_leaves_nothing(
    artifacts: ArtifactStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artifacts, "_move", fail)
    with pytest.raises(ArtifactError, match="No space left"):
        artifacts.put_folder(folder)
    assert stored_files(artifacts) == []


@pytest.mark.parametrize(
    "data", [b"", b"not a tar" * 200, b"../outside".ljust(100, b"\0") + b"0" * 412]
)
def test_what_is_no_safe_folder_is_corrupt(
    artifacts: ArtifactStore, tmp_path: Path, data: bytes
) -> None:
    reference = put_bytes(artifacts, data)
    with pytest.raises(CorruptArtifactError, match=reference):
        artifacts.get_folder(reference, tmp_path / "x" / "target")
    assert list((tmp_path / "x").iterdir()) == []


@pytest.mark.parametrize(
    "reference", ["", "sha256:", "sha256:../../etc/passwd", "md5:" + "0" * 64, "sha256:" + "G" * 64]
)
def test_malformed_references_are_refused(
    artifacts: ArtifactStore, tmp_path: Path, reference: str
) -> None:
    with pytest.raises(ArtifactError, match="not an artifact reference"):
        artifacts.get_folder(reference, tmp_path / "target")


def test_missing_things_are_typed_errors(artifacts: ArtifactStore, tmp_path: Path) -> None:
    absent = "sha256:" + "0" * 64
    with pytest.raises(ArtifactError, match="holds no artifact"):
        artifacts.get_folder(absent, tmp_path / "folder")
    with pytest.raises(ArtifactError, match="is not a folder"):
        artifacts.put_folder(tmp_path / "none")
    with pytest.raises(ArtifactError, match="cannot use 'nonsense://"):
        ArtifactStore("nonsense://bucket")


def test_the_default_is_in_the_working_home(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETCARVE_HOME", str(tmp_path / "home"))
    reference = ArtifactStore().put_folder(folder)
    digest = reference.removeprefix("sha256:")
    stored = tmp_path / "home" / "artifacts" / "sha256" / digest[:2] / digest[2:]
    assert f"sha256:{sha256_file(stored)}" == reference


def test_equal_folders_are_one_artifact(artifacts: ArtifactStore, tmp_path: Path) -> None:
    names = ["b/x.txt", "a.txt", "b.c", "b/long/" + "n" * 120, "ü.txt"]
    one = make_folder(tmp_path / "one", names)
    two = make_folder(tmp_path / "two", names[::-1])
    os.utime(two / "a.txt", (1, 1))
    reference = artifacts.put_folder(one)
    assert artifacts.put_folder(two) == reference

    target = tmp_path / "target"
    target.mkdir()
    (target / "old").touch()
    artifacts.get_folder(reference, target)
    found = {path.relative_to(target).as_posix() for path in target.rglob("*")}
    assert found == {path.relative_to(one).as_posix() for path in one.rglob("*")}
    assert (target / "b" / "x.txt").read_text() == "content of b/x.txt"
    assert os.access(target / "run.sh", os.X_OK)
    assert not os.access(target / "a.txt", os.X_OK)
    assert artifacts.put_folder(target) == reference
    (target / "a.txt").write_text("changed")
    assert artifacts.put_folder(target) != reference


def test_a_folder_with_a_link_is_refused(artifacts: ArtifactStore, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "folder", [])
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(ArtifactError, match="link is neither a plain file nor a folder"):
        artifacts.put_folder(folder)
