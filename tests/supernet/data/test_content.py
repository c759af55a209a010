from __future__ import annotations

import os

import pytest

from supernet.data import content
from supernet.data.content import files_digest
from supernet.errors import DataError


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


def test_of_too_many_bytes_the_ends_count(files, monkeypatch):
    monkeypatch.setattr(content, "_ALL_BYTES", 20)
    monkeypatch.setattr(content, "_PART", 2)
    before = files_digest(files)
    files[1][1].write_bytes(b"bbbbxxbbbb")
    assert files_digest(files) == before
    for changed in (b"xbbbbbbbbb", b"bbbbbbbbbx", b"bbbbbbbbbbb"):
        files[1][1].write_bytes(changed)
        assert files_digest(files) != before


def test_a_missing_file_is_named(files):
    files[2][1].unlink()
    with pytest.raises(DataError, match=r"cannot read .*/c: No such file"):
        files_digest(files)
