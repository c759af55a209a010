"""Names that exist, for tab completion: fast, and without creating or changing anything."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from search.workspace import Places, find_places
from spaces.errors import NetcarveError

Kind = Literal["job", "device", "space", "supernet", "latency table"]


def known_names(kind: Kind, home: Path | None = None, database: str | None = None) -> list[str]:
    """Names of one kind; jobs and supernets newest first, the others sorted.

    Without those of the database when it is not there, cannot be read, or is of another revision:
    completion is no place to complain, nor to upgrade.
    """
    found: list[str] = []
    if kind == "space":
        from spaces.presets import SPACES

        found = SPACES.names()
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return _with_stored(kind, find_places(home, database), found)
    except (NetcarveError, SQLAlchemyError):
        return found


def _with_stored(kind: Kind, places: Places, found: list[str]) -> list[str]:
    file = places.database_file
    if file is not None and not file.exists():
        return found
    from sqlalchemy import select

    from search.models import DeviceRow, DeviceSpaceRow, JobRow, LatencyTableRow, SupernetRow
    from search.store_engine import read_only_engine
    from search.store_schema import needs_upgrade

    engine = read_only_engine(places.database_url)
    try:
        with engine.connect() as connection:
            if needs_upgrade(connection):
                return found
            if kind == "job":
                newest_first = select(JobRow.id).order_by(JobRow.created.desc(), JobRow.id.desc())
                return list(connection.scalars(newest_first))
            if kind == "supernet":
                latest = select(SupernetRow.key).order_by(SupernetRow.created.desc())
                return list(connection.scalars(latest))
            if kind == "device":
                return list(connection.scalars(select(DeviceRow.name).order_by(DeviceRow.name)))
            if kind == "latency table":
                tables = select(LatencyTableRow.name).order_by(LatencyTableRow.name)
                return list(connection.scalars(tables))
            return sorted({*found, *connection.scalars(select(DeviceSpaceRow.name))})
    finally:
        engine.dispose()
