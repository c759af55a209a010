"""Database engines: which URLs are allowed, and how SQLite is made safe for several processes."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.pool import StaticPool

from search.errors import NewerDatabaseError, StoreError

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

BUSY_TIMEOUT_S = 30.0
# An execution option of ours: a block that will write takes SQLite's write lock at its start.
# A transaction that reads first and writes later cannot wait for the lock: it fails at once.
WRITES = "netcarve_writes"

T = TypeVar("T")


def sqlite_url(file: Path) -> URL:
    """The URL of a SQLite file, whatever characters its path has."""
    return URL.create("sqlite", database=str(file))


def database_url(url: str | URL) -> URL:
    """A database URL, with the driver that is used for it.

    Raises:
        StoreError: not a URL, or neither SQLite nor PostgreSQL.
    """
    allowed = "Allowed: sqlite:///FILE and postgresql://USER@HOST/DATABASE."
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise StoreError(f"{url!r} is not a database URL. {allowed}") from error
    backend = parsed.drivername.split("+")[0]
    if backend == "sqlite":
        return parsed.set(drivername="sqlite")
    if backend in {"postgresql", "postgres"}:
        return parsed.set(drivername="postgresql+psycopg")
    raise StoreError(f"the database URL starts with {parsed.drivername!r}. {allowed}")


def database_file(url: URL) -> Path | None:
    """The file of a SQLite database, None for another or an in-memory one."""
    if url.drivername != "sqlite" or url.database in {None, "", ":memory:"}:
        return None
    return Path(str(url.database))


def describe(url: URL) -> str:
    """The URL without its password, for messages."""
    return url.render_as_string(hide_password=True)


def make_engine(url: URL) -> Engine:
    """An engine for `url`; nothing is opened yet.

    Raises:
        StoreError: the folder of the SQLite file is missing, or psycopg is not installed.
    """
    # PostgreSQL has no NaN in JSON and SQLite would hide one, so neither is given any.
    serializer = partial(json.dumps, allow_nan=False)
    if url.drivername != "sqlite":
        try:
            return create_engine(url, json_serializer=serializer, pool_pre_ping=True)
        except (ModuleNotFoundError, NoSuchModuleError) as error:
            raise StoreError(
                "PostgreSQL needs the driver psycopg: pip install 'netcarve[postgresql]'."
            ) from error
    arguments = {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
    file = database_file(url)
    if file is None:
        engine = create_engine(
            url, json_serializer=serializer, connect_args=arguments, poolclass=StaticPool
        )
    else:
        folder = file.absolute().parent
        if not folder.is_dir():
            raise StoreError(f"the folder of the database does not exist: {folder}.")
        engine = create_engine(url, json_serializer=serializer, connect_args=arguments)
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def read_only_engine(url: URL) -> Engine:
    """An engine that changes neither the database nor the files beside it.

    Raises:
        StoreError: psycopg is not installed.
    """
    file = database_file(url)
    if file is None:
        return make_engine(url).execution_options(postgresql_readonly=True)
    file = file.absolute()
    # SQLite creates the two files of a write-ahead log even for a reader, unless it is told that
    # nobody writes; without such a log nobody has the database open.
    options = "mode=ro" if file.with_name(f"{file.name}-wal").exists() else "mode=ro&immutable=1"
    target = f"file:{quote(str(file))}?{options}"
    return create_engine("sqlite://", creator=partial(sqlite3.connect, target, uri=True))


def _configure_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The driver must not open transactions by itself: `_begin_sqlite` does.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = NORMAL")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN DEFERRED")


def enable_wal(engine: Engine) -> None:
    """Let readers and one writer of a SQLite file work at the same time (kept in the file)."""
    if engine.dialect.name == "sqlite":
        retry_while_locked(partial(_set_wal, engine))


def _set_wal(engine: Engine) -> None:
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        if cursor.execute("PRAGMA journal_mode").fetchone()[0] == "delete":
            cursor.execute("PRAGMA journal_mode = WAL")
        cursor.close()
    finally:
        raw.close()


def retry_while_locked(action: Callable[[], T]) -> T:
    """Repeat `action` while another process holds a SQLite lock that has no busy timeout."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            return action()
        except (sqlite3.OperationalError, OperationalError) as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def store_error(url: URL, error: DBAPIError | sqlite3.Error) -> StoreError:
    """What a user is told when the database itself fails."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    reason = " ".join(str(cause).split())
    return StoreError(f"cannot use the database {describe(url)}: {reason}.")


def optuna_storage(url: URL) -> RDBStorage:
    """Optuna's storage in the same database, safe when two processes open it at once.

    Its tables and its `alembic_version` are its own; ours are kept apart (see `migrations`).

    Raises:
        NewerDatabaseError: a newer Optuna wrote its tables.
        StoreError: an older Optuna did.
    """
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage

    arguments = {"timeout": BUSY_TIMEOUT_S} if url.drivername == "sqlite" else {}
    address = url.render_as_string(hide_password=False)
    attempts = 30
    while True:
        attempts -= 1
        try:
            storage = RDBStorage(
                address, {"connect_args": arguments}, skip_compatibility_check=True
            )
            break
        except (DBAPIError, StorageInternalError):
            # Optuna creates what it does not find; of two that do so at once, one fails.
            if attempts == 0:
                raise
            time.sleep(0.1)
    _check_optuna(storage, url)
    return storage


def _check_optuna(storage: RDBStorage, url: URL) -> None:
    # Optuna's own check raises a bare RuntimeError for either.
    from optuna import __version__

    found, newest = storage.get_current_version(), storage.get_head_version()
    if found not in storage.get_all_versions():
        raise NewerDatabaseError(
            f"the studies in the database are of Optuna's schema {found!r}, which Optuna "
            f"{__version__} does not know: a newer one wrote them (newest known here: {newest!r}). "
            "Nothing was recorded. Upgrade Optuna, or name another database with --db or "
            "NETCARVE_DB."
        )
    if found != newest:
        raise StoreError(
            f"the studies in the database are of Optuna's schema {found!r}, Optuna {__version__} "
            f"needs {newest!r}. Upgrade them with: optuna storage upgrade --storage "
            f"'{describe(url)}'"
        )
