"""Opening a store: which databases it takes, and what it does when one is in the way."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text, update

from search.errors import StoreError
from search.models import JobRow
from search.store import Store


def test_a_failed_block_writes_nothing(store: Store, job: str) -> None:
    class StopError(Exception):
        pass

    def fail_after_a_write() -> None:
        with store.writing() as session:
            session.execute(update(JobRow).values(name="changed"))
            raise StopError

    with pytest.raises(StopError):
        fail_after_a_write()
    assert store.jobs.job(job).name == "Digits demo!"


def test_sqlite_is_set_up_for_several_processes(tmp_path: Path) -> None:
    with Store(f"sqlite:///{tmp_path / 'store.db'}") as store, store.reading() as session:
        settings = {
            name: session.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    expected = {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1, "busy_timeout": 30000}
    assert settings == expected


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("results.db", "not a database URL.*sqlite:///FILE"),
        ("mysql://user@host/db", "starts with 'mysql'.*postgresql://"),
        ("sqlite:////no/such/folder/store.db", "does not exist: /no/such/folder"),
        ("postgresql://user:secret@127.0.0.1:1/db", r"user:\*\*\*@127.0.0.1"),
    ],
)
def test_unusable_urls_are_typed_errors(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        Store(url)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes, not a database\n" * 100)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"notes\.txt: file is not a database"):
        Store(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_store_in_memory_works(tmp_path: Path) -> None:
    with Store("sqlite://") as store:
        store.devices.record_devices({"cpu": ({}, {})})
        assert [row.name for row in store.devices.devices()] == ["cpu"]


def test_a_lock_held_too_long_is_a_typed_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.store_engine.BUSY_TIMEOUT_S", 0.2)
    path = tmp_path / "store.db"
    with Store(f"sqlite:///{path}") as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="database is locked"):
            store.devices.record_devices({"cpu": ({}, {})})
        assert store.devices.devices() == [], "readers are not kept waiting by a writer"
        other.rollback()
        other.close()
        store.devices.record_devices({"cpu": ({}, {})})
