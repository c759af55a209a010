"""The database of devices, jobs and results: one small facade over its tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import URL
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.orm import Session

from search import store_engine, store_schema
from search.store_devices import DeviceRecords
from search.store_jobs import JobRecords
from search.store_latencies import LatencyRecords
from search.store_results import ResultRecords

if TYPE_CHECKING:
    from optuna.storages import RDBStorage


class Store:
    """An open database, brought to the newest revision.

    Safe to use from several threads and several processes; a `record_*` method of any part stores
    a thing once and answers whether it was new. Open one per process: a connection does not
    survive a fork.

    Attributes:
        devices: Registered devices and their search spaces.
        jobs: Jobs, their leases, events and checkpoints.
        results: Supernets, evaluations, measurements and bundles.
        latencies: Latency tables.
    """

    def __init__(self, url: str | URL) -> None:
        """Open the database at `url`.

        Raises:
            StoreError: not a database that can be opened.
            NewerDatabaseError: a newer netcarve wrote it; nothing is changed.
        """
        self.url = store_engine.database_url(url)
        self._engine = store_engine.make_engine(self.url)
        try:
            with self._typed_errors():
                self._prepare()
        except BaseException:
            self._engine.dispose()
            raise
        self.devices = DeviceRecords(self)
        self.jobs = JobRecords(self)
        self.results = ResultRecords(self)
        self.latencies = LatencyRecords(self)

    def _prepare(self) -> None:
        # The version is checked before anything is written, the journal mode included.
        with self._engine.connect() as connection:
            store_schema.needs_upgrade(connection)
        store_engine.enable_wal(self._engine)
        store_schema.upgrade(self._engine)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session for reading. Rows stay readable after the block."""
        with (
            self._typed_errors(),
            Session(self._engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session for writing, committed when the block ends and undone when it raises."""
        engine = self._engine.execution_options(**{store_engine.WRITES: True})
        with (
            self._typed_errors(),
            Session(engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def optuna_storage(self) -> RDBStorage:
        """Optuna's own storage in the same database."""
        with self._typed_errors():
            return store_engine.optuna_storage(self.url)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except (IntegrityError, ProgrammingError, DataError):
            # A broken constraint is a bug of the caller, not something a user can mend.
            raise
        except (DBAPIError, sqlite3.Error) as error:
            raise store_engine.store_error(self.url, error) from error
