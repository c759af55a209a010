from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


def _write(target, name):
    with atomic_directory(target) as folder:
        (folder / name).write_text(name)


@pytest.fixture
def before_rename(monkeypatch):
    """Act once, right before a folder of this name is renamed to that name."""

    def install(source, goal, action):
        done = []

        def rename(self, other, original=Path.rename):
            if not done and self.name.startswith(source) and other.name == goal.name:
                done.append(self)
                action()
            return original(self, other)

        monkeypatch.setattr(Path, "rename", rename)
        return done

    return install


def test_an_interrupt_between_the_renames_leaves_the_old_folder(tmp_path, before_rename):
    target = tmp_path / "bundle"
    _write(target, "old")

    def interrupt():
        assert not target.exists()
        raise KeyboardInterrupt

    assert before_rename(".bundle.", target, interrupt) == []
    with pytest.raises(KeyboardInterrupt):
        _write(target, "new")
    assert [p.name for p in target.iterdir()] == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize(
    ("moment", "other"),
    [
        # Another process has moved the old folder away, or has finished, before this one starts.
        ("bundle", Path.rename),
        ("bundle", lambda target, hidden: _write(target, "other")),
        # Another process fills the place that this one has just emptied.
        (".bundle.", lambda target, hidden: _write(target, "other")),
    ],
)
def test_the_last_of_two_writers_wins(tmp_path, before_rename, moment, other):
    target = tmp_path / "bundle"
    _write(target, "old")
    done = before_rename(moment, target, lambda: other(target, tmp_path / "hidden"))
    _write(target, "new")
    assert done
    assert [p.name for p in target.iterdir()] == ["new"]
    assert {p.name for p in tmp_path.iterdir()} - {"hidden"} == {"bundle"}


def test_many_writers_of_one_folder(tmp_path):
    target = tmp_path / "bundle"
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(_write, target, str(i)) for i in range(200)]:
            done.result()
    assert len(list(target.iterdir())) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_what_a_killed_process_left_is_removed_after_an_hour(tmp_path):
    young = ".bundle.abcd1234.tmp"
    kept = [young, ".bundle.settings", ".bundle.x.tmp", ".bundles.abcd1234.tmp", "bundle.abcd1234"]
    for name in [*kept, ".bundle.zyxw9876.tmp"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").touch()
        if name != young:
            os.utime(tmp_path / name, (0, time.time() - 3700))
    _write(tmp_path / "bundle", "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*kept, "bundle"])


def test_sha256(tmp_path):
    (tmp_path / "e").write_bytes(b"")
    assert sha256_file(tmp_path / "e").startswith("e3b0c44298fc1c14")
