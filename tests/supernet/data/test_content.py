from __future__ import annotations

import os
import shutil
import time

import pytest

from spaces.files import sha256_file
from supernet.data import content
from supernet.data.content import files_digest
from supernet.errors import DataError

# Longer than a file system's clock stands still.
TICK = 0.02


@pytest.fixture
def files(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(name.encode() * 10)
    return [(name, tmp_path / name) for name in ("a", "b", "c")]


def test_every_byte_and_name_counts_and_time_does_not(files):
    before = files_digest(files)
    os.utime(files[1][1], (1, 1))
    assert files_digest(files) == before
    assert files_digest([("x", files[0][1]), *files[1:]]) != before
    files[1][1].write_bytes(b"bbbbbxbbbb")
    assert files_digest(files) != before


@pytest.fixture
def many(files, monkeypatch, tmp_path):
    """Files that are so many bytes that their hash is remembered, and what has been read."""
    monkeypatch.setenv("NETCARVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(content, "_REMEMBERED", 20)
    monkeypatch.setattr(content, "_SETTLED_NS", -(10**10))
    read = []

    def noted(path):
        read.append(path.name)
        return sha256_file(path)

    monkeypatch.setattr(content, "sha256_file", noted)
    time.sleep(TICK)
    return files, read


def test_many_bytes_are_read_once(many, tmp_path, monkeypatch):
    files, read = many
    before = files_digest(files)
    assert files_digest(files) == before
    assert read == ["a", "b", "c"]
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    moved = [(name, path.rename(folder / name)) for name, path in files]
    assert files_digest(moved) == before
    shutil.copytree(folder, tmp_path / "copy")
    copied = [(name, tmp_path / "copy" / name) for name, _ in files]
    assert files_digest(copied) == before
    # Nothing depends on how many bytes there are.
    monkeypatch.setattr(content, "_REMEMBERED", 1000)
    assert files_digest(moved) == before


def test_of_many_bytes_each_counts_whatever_a_file_says_of_its_time(many):
    files, _ = many
    before, found = files_digest(files), set()
    path = files[1][1]
    for changed in (b"bbbbxbbbbb", b"bbbbbbbbbx", b"bbbbbbbbbbb"):
        times = path.stat()
        time.sleep(TICK)
        path.write_bytes(changed)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        found.add(files_digest(files))
    assert len(found | {before}) == 4
    assert files_digest([("x", files[0][1]), *files[1:]]) not in found | {before}


def test_what_may_still_be_written_is_not_remembered(many, monkeypatch):
    files, read = many
    monkeypatch.setattr(content, "_SETTLED_NS", 10**10)
    assert files_digest(files) == files_digest(files)
    assert len(read) == 6


def test_what_changed_while_it_was_read_is_not_remembered(many, monkeypatch):
    files, read = many
    noted = content.sha256_file

    def disturbed(path):
        found = noted(path)
        if path.name == "b":
            path.write_bytes(b"x" * 10)
        return found

    monkeypatch.setattr(content, "sha256_file", disturbed)
    before = files_digest(files)
    monkeypatch.setattr(content, "sha256_file", noted)
    assert files_digest(files) != before
    assert len(read) == 6


def test_a_cache_of_no_use_costs_time_only(many, tmp_path):
    files, read = many
    before = files_digest(files)
    (entry,) = (tmp_path / "cache" / "data").iterdir()
    entry.write_text("0")
    assert files_digest(files) == before
    assert entry.read_text() == before
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("a file")
    assert files_digest(files) == before
    assert len(read) == 9


def test_a_missing_file_is_named(files):
    files[2][1].unlink()
    with pytest.raises(DataError, match=r"cannot read .*/c: No such file"):
        files_digest(files)
