from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from search.devices import add_device, register_space_text
from search.names import known_names
from search.store_schema import VERSION_TABLE
from search.workspace import open_store
from spaces import SPACES


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("NETCARVE_DB", "NETCARVE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


def test_names_without_a_database_create_none(home):
    assert known_names("job", home) == known_names("device", home) == []
    assert known_names("space", home) == SPACES.names()
    assert not home.exists()


def test_names_of_a_database(home):
    with open_store(home) as store:
        add_device(store, {"name": "b"})
        add_device(store, {"name": "a"})
        register_space_text(store, "base: mobilenetv3_digits\nname: tiny", "b")
        older, _ = store.jobs.record_job("older", {}, "key", 0)
        newer, _ = store.jobs.record_job("newer", {}, "key", 1)
        for key in ("00ff", "00aa"):
            store.results.record_supernet(key, "sha256:0", {})
    assert known_names("supernet", home) == ["00aa", "00ff"]
    assert known_names("device", home) == ["a", "b"]
    assert known_names("space", home) == sorted([*SPACES.names(), "tiny"])
    assert known_names("job", home) == [newer.id, older.id]


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_nothing_is_changed_or_created(home):
    with open_store(home) as store:
        add_device(store, {"name": "cpu"})
    file = home / "netcarve.db"
    # As `sqlite3 ... .dump | sqlite3 ...` leaves it: opening a store would set the journal mode.
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("PRAGMA journal_mode = DELETE")
    before = content(home)
    assert list(before) == ["netcarve.db"]
    assert known_names("device", home) == ["cpu"]
    assert content(home) == before
    with open_store(home):
        pass
    before = content(home)
    assert known_names("device", home) == ["cpu"]
    assert content(home) == before


def test_names_are_seen_while_another_process_writes(home):
    with open_store(home) as store:
        add_device(store, {"name": "cpu"})
        assert known_names("device", home) == ["cpu"]
        add_device(store, {"name": "new"})
        assert known_names("device", home) == ["cpu", "new"]


@pytest.mark.parametrize("revision", [None, "0000", "9999"])
def test_a_database_of_another_revision_is_left_alone(home, revision):
    with open_store(home) as store:
        add_device(store, {"name": "cpu"})
    with closing(sqlite3.connect(home / "netcarve.db")) as raw, raw:
        if revision is None:
            raw.execute(f"DROP TABLE {VERSION_TABLE}")
        else:
            raw.execute(f"UPDATE {VERSION_TABLE} SET version_num = ?", (revision,))
    before = content(home)
    assert known_names("device", home) == []
    assert known_names("space", home) == SPACES.names()
    assert content(home) == before


def test_a_damaged_database_has_no_names(home):
    home.mkdir()
    (home / "netcarve.db").write_bytes(b"damaged" * 1000)
    assert known_names("device", home) == []
