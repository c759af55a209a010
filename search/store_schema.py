"""Bring a database to the newest revision of the store's tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.schema import SchemaItem

from search.errors import NewerDatabaseError
from search.models import Base
from search.store_engine import WRITES

if TYPE_CHECKING:
    from alembic.config import Config

# Optuna keeps its studies in the same database and owns the default name, `alembic_version`.
VERSION_TABLE = "netcarve_alembic_version"
# Any number: the key of the PostgreSQL advisory lock under which a database is upgraded.
_UPGRADE_LOCK = 0x6E637276


def is_ours(
    item: SchemaItem, name: str | None, kind: str, _reflected: bool, _compare_to: SchemaItem | None
) -> bool:
    """Alembic's `include_object`: tables that are not the store's are not there for Alembic."""
    return kind != "table" or name in Base.metadata.tables


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration for the packaged revisions, run on `connection`."""
    from alembic.config import Config

    with as_file(files("migrations")) as folder:
        config = Config()
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        config.set_main_option("file_template", "v%%(rev)s_%%(slug)s")
    config.attributes["connection"] = connection
    return config


def revisions() -> list[str]:
    """The revisions that this netcarve knows, oldest first.

    Read from the names of the files (`v0001_first_tables.py` is revision `0001`), so that opening
    a database that needs nothing does not import Alembic, which takes half a second.
    """
    names = [item.name for item in files("migrations").joinpath("versions").iterdir()]
    found = [re.fullmatch(r"v(\d{4})_\w+\.py", name) for name in names]
    return sorted(match[1] for match in found if match)


def current_revision(connection: Connection) -> str | None:
    """The revision of the store's tables in a database, None when it has none."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found: str | None = connection.execute(
        text(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608 - a constant
    ).scalar()
    return found


def needs_upgrade(connection: Connection) -> bool:
    """Whether the database is empty or of an older revision.

    Raises:
        NewerDatabaseError: its revision is unknown here.
    """
    found, known = current_revision(connection), revisions()
    if found is not None and found not in known:
        raise NewerDatabaseError(
            f"the database is of revision {found!r}, which this netcarve does not know: a newer "
            f"one wrote it (newest known here: {known[-1]!r}). Nothing was changed. "
            "Upgrade netcarve, or name another database with --db or NETCARVE_DB."
        )
    return found != known[-1]


def upgrade(engine: Engine) -> None:
    """Apply the missing revisions, in one transaction that only one process at a time enters.

    Raises:
        NewerDatabaseError: the database is of a newer netcarve; nothing is written.
    """
    with engine.connect() as connection:
        if not needs_upgrade(connection):
            return
    from alembic import command

    writer = engine.execution_options(**{WRITES: True})
    with (
        writer.connect() as connection,
        _without_foreign_keys(connection),
        connection.begin(),
    ):
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})"))
        if needs_upgrade(connection):
            command.upgrade(alembic_config(connection), "head")
            if connection.dialect.name == "sqlite":
                broken = connection.execute(text("PRAGMA foreign_key_check")).all()
                assert not broken, f"an upgrade broke references: {broken}"


@contextmanager
def _without_foreign_keys(connection: Connection) -> Iterator[None]:
    # SQLite changes a table by copying and dropping it; with enforcement on, dropping a table that
    # others refer to fails. The setting cannot change inside a transaction.
    if connection.dialect.name != "sqlite":
        yield
        return
    cursor = connection.connection.cursor()
    cursor.execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()
