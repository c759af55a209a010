from __future__ import annotations

import shutil
import sqlite3
from collections import namedtuple

import pytest

from search.doctor import Status, examine, places
from search.doctor.machine import GIB
from search.store import Store
from search.workspace import find_places

Usage = namedtuple("Usage", "total used free")


def _named(checks, name):
    return next(check for check in checks if check.name == name)


@pytest.mark.parametrize(
    ("free", "status"),
    [(GIB // 2, Status.PROBLEM), (2 * GIB, Status.WARNING), (50 * GIB, Status.OK)],
)
def test_disk_is_that_of_the_home_to_be(monkeypatch, tmp_path, free, status):
    asked = []
    monkeypatch.setattr(shutil, "disk_usage", lambda p: asked.append(p) or Usage(0, 0, free))
    found = places.check_disk(find_places(tmp_path / "not" / "yet"))
    assert (found.status, asked) == (status, [tmp_path])


def test_a_database_of_a_newer_netcarve_is_a_problem_and_stays_as_it_is(tmp_path):
    file = tmp_path / "new.db"
    Store(f"sqlite:///{file}").close()
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE netcarve_alembic_version SET version_num = '9999'")
    connection.close()
    before = file.read_bytes()
    found = _named(examine(tmp_path, f"sqlite:///{file}"), "database")
    assert found.status is Status.PROBLEM
    assert "'9999'" in found.found
    assert file.read_bytes() == before


def test_a_database_that_a_killed_process_left_is_not_touched(tmp_path):
    (tmp_path / "left").mkdir()
    with Store(f"sqlite:///{tmp_path / 'jobs.db'}") as store:
        store.devices.record_devices({"cpu": ({}, {})})
        for file in tmp_path.glob("jobs.db*"):
            shutil.copy(file, tmp_path / "left")

    def content():
        # Not its third file, the index of the log, which every reader may write.
        return [(tmp_path / "left" / name).read_bytes() for name in ("jobs.db", "jobs.db-wal")]

    before = content()
    assert before[1]
    found = places.check_database(find_places(tmp_path, f"sqlite:///{tmp_path}/left/jobs.db"))
    assert (found.status, "revision 0" in found.found) == (Status.OK, True)
    assert content() == before


def test_databases_present_absent_and_corrupt(tmp_path):
    file = tmp_path / "jobs.db"
    url = f"sqlite:///{file}"
    assert "will be created" in places.check_database(find_places(tmp_path, url)).found
    assert not file.exists()
    Store(url).close()
    assert "revision 0" in places.check_database(find_places(tmp_path, url)).found
    file.write_bytes(b"this is no database" * 100)
    found = _named(examine(tmp_path, url), "database")
    assert (found.status, "not a database" in found.found) == (Status.PROBLEM, True)


def test_a_database_url_that_is_none(tmp_path):
    found = _named(examine(tmp_path, "mysql://somewhere"), "database")
    assert found.status is Status.PROBLEM
    assert "Allowed: sqlite:///FILE" in found.found


def test_artifacts_in_a_folder_in_memory_and_nowhere(tmp_path):
    folder = places.check_artifacts(find_places(tmp_path, artifacts=str(tmp_path / "a")))
    assert folder.status is Status.OK
    assert not (tmp_path / "a").exists()
    memory = places.check_artifacts(find_places(tmp_path, artifacts="memory://doctor"))
    assert memory.status is Status.OK
    nowhere = _named(examine(tmp_path, artifacts="nosuch://bucket"), "artifacts")
    assert nowhere.status is Status.PROBLEM
    assert "nosuch" in nowhere.found


def test_a_home_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    found = places.check_home(find_places(tmp_path / "file" / "home"))
    assert found.status is Status.PROBLEM
    assert "--home" in found.advice
