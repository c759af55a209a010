"""Names that exist, for tab completion: fast, and without creating or changing anything."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from search.workspace import find_places
from spaces.errors import NetcarveError

Kind = Literal["job", "device", "space"]


def known_names(kind: Kind, home: Path | None = None, database: str | None = None) -> list[str]:
    """Names of one kind; jobs newest first, the others sorted. Empty when the database is not
    there or cannot be read: completion is no place to complain.
    """
    found: list[str] = []
    if kind == "space":
        from spaces.presets import SPACES

        found = SPACES.names()
    places = find_places(home, database)
    file = places.database_file
    if file is not None and not file.exists():
        return found
    from search.store import Store

    try:
        with Store(places.database) as store:
            if kind == "job":
                return [job.id for job in reversed(store.jobs.jobs())]
            if kind == "device":
                return [device.name for device in store.devices.devices()]
            return sorted({*found, *(space.name for space in store.devices.spaces())})
    except NetcarveError:
        return found
