from __future__ import annotations

import pytest

from spaces.files import atomic_directory, atomic_write_text, sha256_file


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    target = tmp_path / "a.json"
    atomic_write_text(target, "old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        atomic_write_text(target, "new")
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_failed_directory_leaves_the_old_one(tmp_path):
    target = tmp_path / "bundle"
    with atomic_directory(target) as folder:
        (folder / "x").write_text("old")

    def fail():
        with atomic_directory(target) as folder:
            (folder / "x").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (target / "x").read_text() == "old"
    with atomic_directory(target) as folder:
        (folder / "y").write_text("new")
    assert [p.name for p in target.iterdir()] == ["y"]
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_sha256(tmp_path):
    (tmp_path / "e").write_bytes(b"")
    assert sha256_file(tmp_path / "e").startswith("e3b0c44298fc1c14")
