"""Equal folders are equal archives; whatever an archive holds, it stays in its folder."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.archive import Limits, pack_folder, unpack_folder
from spaces.errors import ArchiveError, CorruptFileError, UnsafeArchiveError


def make_folder(folder: Path, names: list[str]) -> Path:
    (folder / "empty").mkdir(parents=True)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o750)
    return folder


def packed(folder: Path, top: str = "") -> bytes:
    file = io.BytesIO()
    pack_folder(folder, file, top)
    return file.getvalue()


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


def test_a_folder_survives_and_bytes_do_not_depend_on_order_time_or_owner(tmp_path):
    names = ["b/x.txt", "a.txt", "b.c", "b/long/" + "n" * 120, "ü.txt"]
    one = make_folder(tmp_path / "one", names)
    two = make_folder(tmp_path / "two", names[::-1])
    os.utime(two / "a.txt", (1, 1))
    (two / "a.txt").chmod(0o600)
    assert packed(one) == packed(two)
    target = tmp_path / "target"
    target.mkdir()
    unpack_folder(io.BytesIO(packed(one)), target)
    found = {path.relative_to(target).as_posix() for path in target.rglob("*")}
    assert found == {path.relative_to(one).as_posix() for path in one.rglob("*")}
    assert (target / "b" / "x.txt").read_text() == "content of b/x.txt"
    assert os.access(target / "run.sh", os.X_OK)
    assert not os.access(target / "a.txt", os.X_OK)
    assert packed(target) == packed(one)
    (target / "a.txt").write_text("changed")
    assert packed(target) != packed(one)


def test_what_is_not_a_folder_of_files_is_not_packed(tmp_path):
    folder = make_folder(tmp_path / "folder", [])
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(ArchiveError, match="link is neither a plain file nor a folder"):
        packed(folder)
    with pytest.raises(ArchiveError, match="is not a folder"):
        packed(tmp_path / "none")


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


@pytest.mark.parametrize("one_top", [False, True])
@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_archives_are_refused_and_write_nothing_outside(tmp_path, members, one_top):
    arena = tmp_path / "arena"
    (arena / "target").mkdir(parents=True)
    (arena / "victim").write_text("untouched")
    with pytest.raises(UnsafeArchiveError):
        unpack_folder(archive_of(*members), arena / "target", one_top=one_top)
    assert sorted(path.name for path in arena.iterdir()) == ["target", "victim"]
    assert (arena / "victim").read_text() == "untouched"
    assert not Path("/tmp/nc-outside").exists()
    assert issubclass(UnsafeArchiveError, CorruptFileError)


def test_the_top_folder_is_left_out(tmp_path):
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / "one").write_bytes(b"1")
    (folder / "two").write_bytes(b"22")
    with tarfile.open(fileobj=io.BytesIO(packed(folder, top="b"))) as archive:
        assert archive.getnames() == ["b/one", "b/two"]
    (tmp_path / "out").mkdir()
    unpack_folder(io.BytesIO(packed(folder, top="b")), tmp_path / "out", one_top=True)
    assert {f.name: f.read_bytes() for f in (tmp_path / "out").iterdir()} == {
        "one": b"1", "two": b"22"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["evil", "b/c/evil", "other/evil", "b"])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE])
def test_only_plain_files_of_one_folder_below_a_top_folder(tmp_path, name, kind):
    file = archive_of(member("b/fine"), member(name, kind))
    with pytest.raises(UnsafeArchiveError, match="does not belong there"):
        unpack_folder(file, tmp_path, one_top=True)
    assert [path.name for path in tmp_path.iterdir()] == ["fine"]


def test_a_bomb_is_refused_before_it_is_read(tmp_path):
    two = [member("a"), member("b")]
    unpack_folder(archive_of(*two), tmp_path, limits=Limits(2, 10))
    for limits in (Limits(1, 10), Limits(2, 9)):
        target = tmp_path / str(limits.members)
        target.mkdir()
        with pytest.raises(UnsafeArchiveError, match="larger than"):
            unpack_folder(archive_of(*two), target, limits=limits)
        assert [path.name for path in target.iterdir()] == ["a"]


@pytest.mark.parametrize("data", [b"", b"not a tar" * 200, b"\x1f\x8b" + b"\0" * 600])
def test_what_is_no_tar_is_refused(tmp_path, data):
    with pytest.raises(UnsafeArchiveError, match="cannot be read"):
        unpack_folder(io.BytesIO(data), tmp_path)


def test_a_damaged_compressed_archive_is_refused(tmp_path):
    folder = make_folder(tmp_path / "folder", [])
    (folder / "large").write_bytes(os.urandom(100_000))
    data = gzip.compress(packed(folder))
    for number, damaged in enumerate((data[: len(data) // 2], b"no gzip")):
        target = tmp_path / str(number)
        target.mkdir()
        with gzip.open(io.BytesIO(damaged)) as file, pytest.raises(UnsafeArchiveError):
            unpack_folder(file, target)


def test_a_folder_that_cannot_be_written_is_no_damaged_archive(tmp_path):
    with pytest.raises(ArchiveError, match="cannot extract") as caught:
        unpack_folder(archive_of(member("a" * 300)), tmp_path)
    assert not isinstance(caught.value, UnsafeArchiveError)


NAMES = st.lists(
    st.text("ab./\\~ :-é\n", min_size=1, max_size=12), min_size=1, max_size=4, unique=True
)


@given(names=NAMES, one_top=st.booleans())
@settings(max_examples=150, deadline=None)
def test_whatever_the_names_only_the_folder_is_written(names, one_top, tmp_path_factory):
    arena = tmp_path_factory.mktemp("arena")
    target = arena / "x" / "y" / "target"
    target.mkdir(parents=True)
    try:
        unpack_folder(archive_of(*map(member, names)), target, one_top=one_top)
    except UnsafeArchiveError:
        pass
    else:
        assert packed(target)
    outside = [path for path in arena.rglob("*") if not path.is_relative_to(target)]
    assert {path.name for path in outside} == {"x", "y"}
