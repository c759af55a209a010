"""The trained supernet of a job: trained once, found again by its key."""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from search.artifacts import ArtifactStore
from search.distributed_training import WorkerGroup, train_on_workers
from search.interrupts import interruptible
from search.models import SupernetRow
from search.progress import Progress
from search.supernet_view import description, forget_training, note_training
from search.supernet_work import SupernetWork
from supernet import (
    CheckpointError,
    Supernet,
    TrainingStoppedError,
    load_supernet,
    train_supernet,
)
from supernet.checkpoint import discard_checkpoints
from supernet.store import SUPERNET_FOLDER

_log = logging.getLogger(__name__)
_POLL_S = 0.5


def ensure_supernet(session: SupernetWork) -> None:
    """Make the trained supernet of a job lie in its folder, undamaged.

    Trains it, goes on training it from its last checkpoint, or takes the one that an earlier job
    with the same space, data and options left. One process at a time works on a supernet.

    Raises:
        CheckpointError: Every checkpoint of an interrupted training is damaged.
        ExecutionError: The training workers of the job's resources cannot be had, or failed.
        KeyboardInterrupt: Ctrl-C; the training has left a checkpoint.
        ArtifactError: A stored supernet is missing or damaged.
    """
    folder = session.supernet_folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder.with_suffix(".lock"), session.progress):
        row = session.store.results.supernet(folder.name)
        if row is not None:
            restore_supernet(session.artifacts, folder, row.artifact)
            _note_place(session, row)
        else:
            _train(session)
        # With the optimiser's moments they are several times as large as the supernet.
        discard_checkpoints(folder)


def _note_place(session: SupernetWork, row: SupernetRow) -> None:
    """Have the store know where the data of a trained supernet, which has been moved, is now."""
    data = session.settings.data.model_dump(mode="json")
    if row.metrics.get("data", data) != data:
        session.store.results.describe_supernet(row.key, row.metrics | {"data": data})


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
    folder = session.supernet_folder
    note_training(session)
    with interruptible() as stop:
        try:
            _train_anywhere(session, folder, stop)
        except TrainingStoppedError as stopped:
            raise KeyboardInterrupt(str(stopped)) from None
        reference = session.artifacts.put_folder(folder / SUPERNET_FOLDER)
        session.store.results.record_supernet(folder.name, reference, description(session))
        forget_training(session)
    if stop():
        # After the last step there was nothing to stop; what follows the training shall not begin.
        raise KeyboardInterrupt(f"the training of {folder.name} is done")


def _train_anywhere(session: SupernetWork, folder: Path, stop: Callable[[], bool]) -> None:
    """In this process, or on Ray where more than one worker or a GPU is wanted."""

    def report(phase: str, done: int, total: int) -> None:
        session.progress(f"train: {phase}", done, total)

    settings, resources = session.settings, session.settings.resources
    if resources.training_workers == 1 and resources.training_device == "cpu":
        import torch

        torch.set_num_threads(resources.training_threads)
        train_supernet(session.space, settings.supernet, session.data, folder, report, stop=stop)
        return
    group = WorkerGroup(
        resources.training_workers,
        resources.training_threads,
        resources.training_device,
        resources.retries,
    )
    train_on_workers(
        session.executor,
        session.space,
        settings.supernet,
        settings.data,
        folder,
        group,
        report,
        stop,
    )


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
