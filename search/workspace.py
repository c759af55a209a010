"""Where a command works: the home folder, the database and the artifacts that belong together."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from search.home import working_home

if TYPE_CHECKING:
    from sqlalchemy import URL

    from search.artifacts import ArtifactStore
    from search.store import Store


@dataclass(frozen=True)
class Places:
    """Where things lie; nothing is opened or created.

    Attributes:
        home: Folder of everything that has no place of its own.
        database: Database URL as it was given, None for `netcarve.db` in the home folder.
        artifacts: URL of the artifacts.
    """

    home: Path
    database: str | None
    artifacts: str

    @property
    def database_url(self) -> URL:
        """The database.

        Raises:
            StoreError: What was given is not a URL, or neither SQLite nor PostgreSQL.
        """
        from search.store_engine import database_url, sqlite_url

        if self.database is None:
            return sqlite_url(self.home / "netcarve.db")
        return database_url(self.database)

    @property
    def database_file(self) -> Path | None:
        """The file of a SQLite database, None for another or an in-memory one.

        Raises:
            StoreError: See `database_url`.
        """
        from search.store_engine import database_file

        return database_file(self.database_url)


@dataclass(frozen=True)
class Workspace:
    """Open places, for work that needs all of them."""

    home: Path
    store: Store
    artifacts: ArtifactStore


def find_places(
    home: Path | None = None, database: str | None = None, artifacts: str | None = None
) -> Places:
    """Resolve what was given; then `NETCARVE_HOME`, `NETCARVE_DB` and `NETCARVE_ARTIFACTS`; then
    the home folder, `./netcarve-home`.
    """
    folder = home.absolute() if home is not None else working_home()
    return Places(
        folder,
        database or os.environ.get("NETCARVE_DB") or None,
        artifacts or os.environ.get("NETCARVE_ARTIFACTS") or str(folder / "artifacts"),
    )


@contextmanager
def open_store(home: Path | None = None, database: str | None = None) -> Iterator[Store]:
    """The open database; the home folder is created when the database lies there.

    Raises:
        SearchError: The home folder cannot be created.
        StoreError: The database cannot be used, or is a newer netcarve's.
    """
    from search.store import Store

    places = find_places(home, database)
    if places.database_file is not None and places.database_file.parent == places.home:
        _create(places.home)
    with Store(places.database_url) as store:
        yield store


@contextmanager
def open_workspace(
    home: Path | None = None, database: str | None = None, artifacts: str | None = None
) -> Iterator[Workspace]:
    """Home folder (created), open database and artifacts.

    Raises:
        SearchError: The home folder cannot be created.
        StoreError: The database cannot be used, or is a newer netcarve's.
        ArtifactError: The artifacts' URL cannot be used.
    """
    from search.artifacts import ArtifactStore

    places = find_places(home, database, artifacts)
    with open_store(home, database) as store:
        _create(places.home)
        yield Workspace(places.home, store, ArtifactStore(places.artifacts))


def _create(home: Path) -> None:
    from search.errors import SearchError

    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SearchError(
            f"cannot create the home folder {home}: {error.strerror}. "
            "Name another one with --home or NETCARVE_HOME."
        ) from error
