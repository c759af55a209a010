"""The trained supernet of a job: trained once, found again by its key."""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from search.artifacts import ArtifactStore
from search.progress import Progress
from search.supernet_view import description
from search.supernet_work import SupernetWork
from supernet import CheckpointError, Supernet, load_supernet, train_supernet
from supernet.store import SUPERNET_FOLDER

_log = logging.getLogger(__name__)
_POLL_S = 0.5


def ensure_supernet(session: SupernetWork) -> None:
    """Make the trained supernet of a job lie in its folder, undamaged.

    Trains it, goes on training it from its last checkpoint, or takes the one that an earlier job
    with the same space, data and options left. One process at a time works on a supernet.

    Raises:
        CheckpointError: Every checkpoint of an interrupted training is damaged.
        ArtifactError: A stored supernet is missing or damaged.
    """
    folder = session.supernet_folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder.with_suffix(".lock"), session.progress):
        row = session.store.results.supernet(folder.name)
        if row is not None:
            restore_supernet(session.artifacts, folder, row.artifact)
        else:
            _train(session)


def restore_supernet(artifacts: ArtifactStore, folder: Path, artifact: str) -> Supernet:
    """The trained supernet, from its folder, or from its stored copy where that is damaged.

    Raises:
        ArtifactError: The stored copy is missing or damaged, too.
    """
    if (folder / SUPERNET_FOLDER).exists():
        try:
            return load_supernet(folder)
        except CheckpointError as error:
            _log.warning("%s; taking the stored copy", error)
    artifacts.get_folder(artifact, folder / SUPERNET_FOLDER)
    return load_supernet(folder)


def _train(session: SupernetWork) -> None:
    import torch

    folder = session.supernet_folder
    torch.set_num_threads(session.settings.resources.training_threads)
    train_supernet(
        session.space,
        session.settings.supernet,
        session.data,
        folder,
        lambda phase, done, total: session.progress(f"train: {phase}", done, total),
    )
    reference = session.artifacts.put_folder(folder / SUPERNET_FOLDER)
    session.store.results.record_supernet(folder.name, reference, description(session))


@contextmanager
def _alone(path: Path, progress: Progress) -> Iterator[None]:
    """Hold a file lock that the kernel releases when the process dies."""
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress("waiting for another job that trains the same supernet", 0, 0)
                time.sleep(_POLL_S)
        yield
