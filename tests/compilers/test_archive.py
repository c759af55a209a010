from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

import compilers.archive as archive_module
from compilers.archive import extract_archive, write_archive
from compilers.errors import BundleError


def pack(path: Path, *members: tuple[str, bytes | None], kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data or b"")
            if data is None:
                info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info, io.BytesIO(data or b""))
    return path


def test_a_folder_survives_and_bytes_do_not_depend_on_time_or_owner(tmp_path):
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / "one").write_bytes(b"1")
    (folder / "two").write_bytes(b"22")
    write_archive(folder, tmp_path / "first.tar.gz")
    os.utime(folder / "one", (1, 1))
    (folder / "two").chmod(0o600)
    write_archive(folder, tmp_path / "second.tar.gz")
    assert (tmp_path / "first.tar.gz").read_bytes() == (tmp_path / "second.tar.gz").read_bytes()
    extract_archive(tmp_path / "first.tar.gz", tmp_path / "out")
    assert {f.name: f.read_bytes() for f in (tmp_path / "out").iterdir()} == {
        "one": b"1", "two": b"22"
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["../evil", "b/../evil", "/evil", "/b/evil", "b/c/evil", "evil", "b/..", "b//evil", "other/x",
     "b/..\\evil", "../../b/evil"],
)  # fmt: skip
def test_nothing_is_written_outside(tmp_path, name):
    inner = tmp_path / "inner"
    inner.mkdir()
    path = pack(tmp_path / "a.tar.gz", ("b/fine", b"1"), (name, b"evil"))
    with pytest.raises(BundleError, match="does not belong"):
        extract_archive(path, inner / "out")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.tar.gz", "inner"]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_only_regular_files(tmp_path, kind):
    path = pack(tmp_path / "a.tar.gz", ("b/link", None), kind=kind)
    with pytest.raises(BundleError, match="does not belong"):
        extract_archive(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_truncated_and_foreign_files(tmp_path):
    path = pack(tmp_path / "a.tar.gz", ("b/x", os.urandom(100_000)))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(BundleError, match="not a readable"):
        extract_archive(path, tmp_path / "out")
    path.write_bytes(b"not gzip")
    with pytest.raises(BundleError, match="not a readable"):
        extract_archive(path, tmp_path / "out")
    with pytest.raises(BundleError, match="empty"):
        extract_archive(pack(path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bomb_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_module, "MAX_BYTES", 1000)
    path = pack(tmp_path / "a.tar.gz", ("b/x", bytes(2000)))
    with pytest.raises(BundleError, match="larger"):
        extract_archive(path, tmp_path / "out")
    monkeypatch.setattr(archive_module, "MAX_FILES", 2)
    path = pack(tmp_path / "a.tar.gz", ("b/x", b""), ("b/y", b""), ("b/z", b""))
    with pytest.raises(BundleError, match="larger"):
        extract_archive(path, tmp_path / "out")
