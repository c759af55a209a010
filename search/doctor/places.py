"""Checks of the places that a search writes to: home, disk, database, artifacts."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from search.doctor.check import Check, Status
from search.doctor.machine import GIB

if TYPE_CHECKING:
    from search.workspace import Places


def check_home(places: Places) -> Check:
    """The home folder, or the place where it will be."""
    return _writable("home", places.home, "Name another folder with --home or NETCARVE_HOME.")


def check_disk(places: Places) -> Check:
    """Free disk where the home folder lies."""
    folder = _existing(places.home)
    free = shutil.disk_usage(folder).free
    found = f"{free / GIB:.1f} GiB free at {folder}"
    if free < GIB:
        return Check("disk", Status.PROBLEM, found, "Free at least 1 GiB, or use another --home.")
    if free < 5 * GIB:
        return Check("disk", Status.WARNING, found, "5 GiB are better.")
    return Check("disk", Status.OK, found)


def check_database(places: Places) -> Check:
    """The database: reachable, and of a revision that this netcarve can use; it is not changed."""
    from sqlalchemy.exc import DBAPIError

    from search import store_engine, store_schema
    from search.errors import StoreError

    url, file = places.database_url, places.database_file
    if file is not None and not file.exists():
        advice = "Name another database with --db or NETCARVE_DB."
        found = _writable("database", file.absolute().parent, advice)
        if found.status is not Status.OK:
            return found
        return Check("database", Status.OK, f"{file} will be created")
    engine = store_engine.read_only_engine(url)
    try:
        with engine.connect() as connection:
            outdated = store_schema.needs_upgrade(connection)
            revision = store_schema.current_revision(connection)
    except DBAPIError as error:
        raise StoreError(str(store_engine.store_error(url, error))) from error
    finally:
        engine.dispose()
    found_text = f"{store_engine.describe(url)}, revision {revision or 'none'}"
    if outdated:
        found_text += f", becomes {store_schema.revisions()[-1]} when it is first used"
    return Check("database", Status.OK, found_text)


def check_artifacts(places: Places) -> Check:
    """The artifacts' folder or URL: a small file is written there and removed again."""
    import fsspec
    from fsspec.implementations.local import LocalFileSystem

    from search.artifacts import ArtifactStore

    advice = "Name another place with --artifacts or NETCARVE_ARTIFACTS."
    ArtifactStore(places.artifacts)
    filesystem, root = fsspec.core.url_to_fs(places.artifacts)
    if isinstance(filesystem, LocalFileSystem):
        return _writable("artifacts", Path(root), advice)
    test = f"{root.rstrip('/')}/.netcarve-doctor"
    try:
        filesystem.makedirs(root, exist_ok=True)
        filesystem.pipe_file(test, b"netcarve")
        filesystem.rm_file(test)
    except OSError as error:
        return Check("artifacts", Status.PROBLEM, f"{places.artifacts}: {error}", advice)
    return Check("artifacts", Status.OK, f"{places.artifacts} is writable")


def check_runtime_folder() -> Check:
    """The private folder for locks and Ray's sockets."""
    from search.home import runtime_folder

    advice = "Set NETCARVE_RUNTIME_DIR to a folder of your own."
    return _writable("runtime folder", runtime_folder(), advice)


def _existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _writable(name: str, path: Path, advice: str) -> Check:
    folder = _existing(path)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Check(name, Status.PROBLEM, f"{folder} is not writable: {error.strerror}", advice)
    return Check(name, Status.OK, str(path) if folder == path else f"{path} will be created")
