"""Artifacts keep their content, whatever happens; archives stay in their folder."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.archive import pack_folder, unpack_folder
from search.artifacts import ArtifactStore
from search.errors import ArtifactError, CorruptArtifactError, UnsafeArchiveError
from spaces.errors import CorruptFileError


@pytest.fixture(params=["folder", "memory"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    if request.param == "folder":
        return ArtifactStore(str(tmp_path / "artifacts"))
    return ArtifactStore(f"memory://{uuid.uuid4().hex}/artifacts")


def stored_files(artifacts: ArtifactStore) -> list[str]:
    return sorted(artifacts._filesystem.find(artifacts._root))


def test_bytes_come_back_under_the_hash_of_their_content(artifacts: ArtifactStore) -> None:
    data = os.urandom(3_000_000)
    reference = artifacts.put_bytes(data)
    assert reference == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert artifacts.get_bytes(reference) == data
    assert artifacts.exists(reference)
    assert artifacts.get_bytes(artifacts.put_bytes(b"")) == b""


def test_equal_content_is_stored_once(artifacts: ArtifactStore, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    first, second = artifacts.put_bytes(b"weights"), artifacts.put_file(path)
    assert first == second
    assert len(stored_files(artifacts)) == 1, "one content, and no temporary file"
    artifacts.get_file(second, tmp_path / "new" / "copy")
    assert (tmp_path / "new" / "copy").read_bytes() == b"weights"


def test_a_damaged_artifact_is_never_handed_out(artifacts: ArtifactStore, tmp_path: Path) -> None:
    reference = artifacts.put_bytes(b"content")
    (path,) = stored_files(artifacts)
    artifacts._filesystem.pipe_file(path, b"c0ntent")
    target = tmp_path / "target"
    target.write_bytes(b"what was there")
    for read in (
        lambda: artifacts.get_bytes(reference),
        lambda: artifacts.get_file(reference, target),
        lambda: artifacts.get_folder(reference, tmp_path / "folder"),
    ):
        with pytest.raises(CorruptArtifactError, match="damaged"):
            read()
    assert issubclass(CorruptArtifactError, CorruptFileError)
    assert target.read_bytes() == b"what was there"
    assert not (tmp_path / "folder").exists()
    assert [item.name for item in tmp_path.iterdir() if item.name.startswith(".")] == []


def test_a_truncated_artifact_is_healed_by_storing_it_again(artifacts: ArtifactStore) -> None:
    reference = artifacts.put_bytes(b"content")
    (path,) = stored_files(artifacts)
    artifacts._filesystem.pipe_file(path, b"con")
    assert artifacts.put_bytes(b"content") == reference
    assert artifacts.get_bytes(reference) == b"content"


def test_a_failed_upload_leaves_nothing(
    artifacts: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artifacts, "_move", fail)
    with pytest.raises(ArtifactError, match="No space left"):
        artifacts.put_bytes(b"content")
    assert stored_files(artifacts) == []


@pytest.mark.parametrize(
    "reference", ["", "sha256:", "sha256:../../etc/passwd", "md5:" + "0" * 64, "sha256:" + "G" * 64]
)
def test_malformed_references_are_refused(artifacts: ArtifactStore, reference: str) -> None:
    with pytest.raises(ArtifactError, match="not an artifact reference"):
        artifacts.get_bytes(reference)


def test_missing_things_are_typed_errors(artifacts: ArtifactStore, tmp_path: Path) -> None:
    absent = "sha256:" + "0" * 64
    assert not artifacts.exists(absent)
    with pytest.raises(ArtifactError, match="holds no artifact"):
        artifacts.get_file(absent, tmp_path / "file")
    with pytest.raises(ArtifactError, match="cannot read"):
        artifacts.put_file(tmp_path / "none")
    with pytest.raises(ArtifactError, match="is not a folder"):
        artifacts.put_folder(tmp_path / "none")
    with pytest.raises(ArtifactError, match="cannot use 'nonsense://"):
        ArtifactStore("nonsense://bucket")


def test_the_default_is_in_the_working_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETCARVE_HOME", str(tmp_path / "home"))
    reference = ArtifactStore().put_bytes(b"content")
    digest = reference.removeprefix("sha256:")
    stored = tmp_path / "home" / "artifacts" / "sha256" / digest[:2] / digest[2:]
    assert stored.read_bytes() == b"content"


def make_folder(folder: Path, names: list[str]) -> Path:
    (folder / "empty").mkdir(parents=True)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o750)
    return folder


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


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = 5 if kind == tarfile.REGTYPE else 0
    return info


def archive_of(*members: tarfile.TarInfo) -> io.BytesIO:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info in members:
            archive.addfile(info, io.BytesIO(b"evil!"))
    file.seek(0)
    return file


HOSTILE = {
    "parent": [member("../outside")],
    "deep parent": [member("a/../../outside")],
    "absolute": [member("/tmp/nc-outside")],
    "symbolic link": [member("link", tarfile.SYMTYPE, ".."), member("link/outside")],
    "link alone": [member("link", tarfile.SYMTYPE, "/etc/passwd")],
    "hard link": [member("link", tarfile.LNKTYPE, "../victim")],
    "device": [member("null", tarfile.CHRTYPE)],
    "pipe": [member("pipe", tarfile.FIFOTYPE)],
    "the folder itself": [member(".")],
    "no name": [member("")],
    "backslash": [member("..\\outside")],
    "drive": [member("c:/outside")],
    "twice": [member("a"), member("./a")],
    "below a file": [member("a"), member("a/b")],
    "over a folder": [member("a/b"), member("a")],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_archives_are_refused_and_write_nothing_outside(
    artifacts: ArtifactStore, tmp_path: Path, members: list[tarfile.TarInfo]
) -> None:
    arena = tmp_path / "arena"
    arena.mkdir()
    (arena / "victim").write_text("untouched")
    reference = artifacts.put_bytes(archive_of(*members).getvalue())
    with pytest.raises(UnsafeArchiveError):
        artifacts.get_folder(reference, arena / "target")
    assert [path.name for path in arena.iterdir()] == ["victim"]
    assert (arena / "victim").read_text() == "untouched"
    assert not Path("/tmp/nc-outside").exists()


@pytest.mark.parametrize("data", [b"", b"not a tar" * 200, b"\x1f\x8b" + b"\0" * 600])
def test_what_is_no_tar_is_refused(artifacts: ArtifactStore, tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UnsafeArchiveError):
        artifacts.get_folder(artifacts.put_bytes(data), tmp_path / "target")
    assert not (tmp_path / "target").exists()


NAMES = st.lists(
    st.text("ab./\\~ :-é\n", min_size=1, max_size=12), min_size=1, max_size=4, unique=True
)


@given(names=NAMES)
@settings(max_examples=150, deadline=None)
def test_whatever_the_names_only_the_folder_is_written(
    names: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    arena = tmp_path_factory.mktemp("arena")
    target = arena / "x" / "y" / "target"
    target.mkdir(parents=True)
    try:
        unpack_folder(archive_of(*map(member, names)), target)
    except UnsafeArchiveError:
        pass
    else:
        packed = io.BytesIO()
        pack_folder(target, packed)
        assert packed.tell() > 0
    outside = [path for path in arena.rglob("*") if not path.is_relative_to(target)]
    assert {path.name for path in outside} == {"x", "y"}
