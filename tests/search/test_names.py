from __future__ import annotations

import pytest

from search.devices import add_device, register_space_text
from search.names import known_names
from search.workspace import open_store


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("NETCARVE_DB", "NETCARVE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


def test_names_without_a_database_create_none(home):
    assert known_names("job", home) == known_names("device", home) == []
    assert known_names("space", home) == ["mobilenetv3_digits"]
    assert not home.exists()


def test_names_of_a_database(home):
    with open_store(home) as store:
        add_device(store, {"name": "b"})
        add_device(store, {"name": "a"})
        register_space_text(store, "base: mobilenetv3_digits\nname: tiny", "b")
        older, _ = store.jobs.record_job("older", {}, "key", 0)
        newer, _ = store.jobs.record_job("newer", {}, "key", 1)
    assert known_names("device", home) == ["a", "b"]
    assert known_names("space", home) == ["mobilenetv3_digits", "tiny"]
    assert known_names("job", home) == [newer.id, older.id]


def test_a_damaged_database_has_no_names(home):
    home.mkdir()
    (home / "netcarve.db").write_bytes(b"damaged" * 1000)
    assert known_names("device", home) == []
