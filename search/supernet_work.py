"""What the training of a supernet needs, with a job or without one."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from search.artifacts import ArtifactStore
from search.execution import Executor
from search.home import supernet_folder
from search.host_lock import HostLock, announce
from search.job import JobSettings
from search.progress import Progress
from search.store import Store
from spaces import SearchSpace
from supernet import DataSplits, load_data
from supernet.trainer import check_training


class SupernetWork(Protocol):
    """An open `JobSession`, or a `TrainingSession`."""

    store: Store
    artifacts: ArtifactStore
    progress: Progress
    settings: JobSettings
    space: SearchSpace
    data: DataSplits
    data_identity: dict[str, Any]
    supernet_folder: Path
    executor: Executor


class TrainingSession:
    """A context in which the supernet of a job file can be trained; no device is asked.

    Args:
        settings: The job file.
        store: The open store.
        artifacts: Where the supernet goes.
        home: The working home.
        progress: Told about every step.

    Raises:
        UnknownNameError: Unknown space or dimension.
        SpaceError: A value that the space does not have.
        DataError: The data cannot be loaded.
        SupernetConfigError: Space, data and training options do not fit each other.
        CheckpointError: The teacher cannot be read.
    """

    def __init__(
        self,
        settings: JobSettings,
        store: Store,
        artifacts: ArtifactStore,
        home: Path,
        progress: Progress,
    ) -> None:
        self.settings = settings
        self.store = store
        self.artifacts = artifacts
        self.progress = progress
        self.space = settings.search_space()
        self.data = load_data(settings.data, progress)
        check_training(self.space, settings.supernet, self.data)
        self.data_identity = settings.data.identity()
        key = settings.supernet.key(self.space.key, self.data_identity)
        self.supernet_folder = supernet_folder(home, key)
        self._stack = ExitStack()

    def __enter__(self) -> TrainingSession:
        with ExitStack() as stack:
            purpose = f"training of supernet {self.supernet_folder.name}"
            stack.enter_context(HostLock().shared(purpose, on_wait=announce(self.progress)))
            self.executor = stack.enter_context(Executor(self.settings.resources))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
