"""What the parts of the store share: where their sessions come from, and insert-once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from sqlalchemy import Double, inspect
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import FunctionElement

from search.models import Base


class Sessions(Protocol):
    """Gives sessions; the `Store` is one."""

    def reading(self) -> AbstractContextManager[Session]:
        """A session for reading."""

    def writing(self) -> AbstractContextManager[Session]:
        """A session for writing."""


def now() -> float:
    """Seconds since the epoch (UTC)."""
    return time.time()


class database_now(FunctionElement[float]):  # noqa: N801 - reads as the SQL function it is
    """The database's own clock: hosts that compare heartbeats need not agree on the time."""

    type = Double()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _sqlite_now(_element: database_now, _compiler: object, **_options: object) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(database_now, "postgresql")
def _postgresql_now(_element: database_now, _compiler: object, **_options: object) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


def insert_into(session: Session, table: type[Base]) -> sqlite.Insert | postgresql.Insert:
    """An insertion that can be told what to do about rows that are there."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    return insert(table)


def insert_once(session: Session, table: type[Base], values: Mapping[str, Any]) -> bool:
    """Insert a row unless one with the same unique key is there; whether it was inserted."""
    statement = insert_into(session, table).values(**values).on_conflict_do_nothing()
    key = inspect(table).primary_key[0]
    return session.execute(statement.returning(key)).first() is not None
