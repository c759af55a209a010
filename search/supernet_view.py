"""The supernets of a home and its database: trained ones, and unfinished trainings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from search.home import supernet_folder
from search.models import SupernetRow
from search.store import Store
from search.supernet_work import SupernetWork
from spaces import UnknownNameError
from spaces.files import atomic_write_text
from supernet.checkpoint import checkpoint_step


@dataclass(frozen=True)
class SupernetView:
    """One supernet.

    Attributes:
        key: Names it; a hash of everything that decides its weights.
        state: `trained`, or `unfinished`: its training was interrupted.
        step: Steps of the last checkpoint of an unfinished training.
        space: Name of its space; "" when nobody knows any more.
        family: The space's family.
        data: The `data` section of its job file.
        options: The `supernet` section of its job file.
        train_images: Images in the training split, None when unknown.
        jobs: Ids of the jobs that use it.
        folder: Where its checkpoints lie.
        artifact: Reference of the trained supernet.
        created: When its training ended, seconds since the epoch.
    """

    key: str
    state: str
    step: int | None
    space: str
    family: str
    data: dict[str, Any]
    options: dict[str, Any]
    train_images: int | None
    jobs: list[str]
    folder: str
    artifact: str | None
    created: float | None

    def to_json(self) -> dict[str, Any]:
        """All fields, JSON-ready."""
        return asdict(self)


def description(session: SupernetWork) -> dict[str, Any]:
    """What is stored beside a trained supernet: enough to evaluate it without its job."""
    return {
        "train_images": len(session.data.train),
        "space": session.space.to_json(),
        "data": session.settings.data.model_dump(mode="json"),
        "data_identity": session.data_identity,
        "options": session.settings.supernet.model_dump(mode="json"),
    }


def note_training(session: SupernetWork) -> None:
    """Write beside the folder of a supernet what is about to be trained in it."""
    atomic_write_text(_note(session.supernet_folder), json.dumps(description(session), indent=1))


def forget_training(session: SupernetWork) -> None:
    """Remove what `note_training` wrote: the store has it."""
    _note(session.supernet_folder).unlink(missing_ok=True)


def _note(folder: Path) -> Path:
    return folder.with_suffix(".json")


def _noted(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(_note(folder).read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def stored_description(store: Store, row: SupernetRow) -> dict[str, Any]:
    """`description` of a trained supernet; of one that an earlier version stored, from a job, and
    without what no job knows."""
    return dict(row.metrics) if "space" in row.metrics else _from_jobs(store, row.key)


def _from_jobs(store: Store, key: str) -> dict[str, Any]:
    for job in store.jobs.jobs():
        if job.spec.get("supernet_key") == key:
            settings = job.settings
            return {
                "train_images": job.spec["data"]["train"],
                "space": job.spec["space"],
                "data": settings["data"],
                "options": settings["supernet"],
            }
    return {}


def supernet_of(store: Store, name: str) -> SupernetRow:
    """The trained supernet of a job, or with a key.

    Raises:
        UnknownNameError: No such job or key, or it is not trained yet.
    """
    known = {row.key: row for row in store.results.supernets()}
    jobs = {job.id: str(job.spec.get("supernet_key")) for job in store.jobs.jobs()}
    row = known.get(jobs.get(name, name))
    if row is None:
        done = [job for job, key in jobs.items() if key in known]
        raise UnknownNameError("trained supernet, or job with one,", name, [*known, *done])
    return row


def list_supernets(store: Store, home: Path) -> list[SupernetView]:
    """All supernets: the trained ones, oldest first, then those whose training is unfinished."""
    trained = {row.key: row for row in store.results.supernets()}
    root = supernet_folder(home, "")
    folders = sorted(root.iterdir()) if root.is_dir() else []
    found = [_view(store, home, key, row) for key, row in trained.items()]
    for folder in folders:
        if folder.is_dir() and folder.name not in trained and checkpoint_step(folder) is not None:
            found.append(_view(store, home, folder.name, None))
    return found


def show_supernet(store: Store, home: Path, name: str) -> SupernetView:
    """One supernet, by its key or by a job's id.

    Raises:
        UnknownNameError: No such supernet or job.
    """
    views = {view.key: view for view in list_supernets(store, home)}
    by_job = {job: view for view in views.values() for job in view.jobs}
    found = views.get(name) or by_job.get(name)
    if found is None:
        raise UnknownNameError("supernet, or job with one,", name, [*views, *by_job])
    return found


def _view(store: Store, home: Path, key: str, row: SupernetRow | None) -> SupernetView:
    folder = supernet_folder(home, key)
    known: Mapping[str, Any] = (
        stored_description(store, row)
        if row is not None
        else _noted(folder) or _from_jobs(store, key)
    )
    space = known.get("space", {})
    return SupernetView(
        key=key,
        state="unfinished" if row is None else "trained",
        step=checkpoint_step(folder) if row is None else None,
        space=str(space.get("name", "")),
        family=str(space.get("family", "")),
        data=dict(known.get("data", {})),
        options=dict(known.get("options", {})),
        train_images=known.get("train_images"),
        jobs=[job.id for job in store.jobs.jobs() if job.spec.get("supernet_key") == key],
        folder=str(folder),
        artifact=None if row is None else row.artifact,
        created=None if row is None else row.created,
    )
