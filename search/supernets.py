"""The trained supernet of a job: trained once, found again by its key."""

from __future__ import annotations

from pathlib import Path

from search.artifacts import ArtifactStore
from search.job import JobSettings
from search.progress import Progress
from search.store import Store
from spaces.files import sha256_file
from supernet import DataSplits, train_supernet
from supernet.store import SUPERNET_FOLDER


def supernet_key(settings: JobSettings) -> str:
    """16 hexadecimal digits of everything that decides the trained weights."""
    data = settings.data.model_dump(mode="json")
    if settings.data.path is not None:
        # A file may change under the same name.
        data["path"] = sha256_file(settings.data.path)
    return settings.supernet.key(settings.search_space().key, data)


def ensure_supernet(
    settings: JobSettings,
    data: DataSplits,
    store: Store,
    artifacts: ArtifactStore,
    home: Path,
    progress: Progress,
) -> Path:
    """The folder of the job's trained supernet.

    Trains it, goes on training it from its last checkpoint, or takes the one that an earlier job
    with the same space, data and options left.

    Raises:
        CheckpointError: Every checkpoint of an interrupted training is damaged.
        ArtifactError: A stored supernet is missing or damaged.
    """
    import torch

    key = supernet_key(settings)
    folder = home / "supernets" / key
    row = store.results.supernet(key)
    if row is not None:
        if not (folder / SUPERNET_FOLDER).exists():
            artifacts.get_folder(row.artifact, folder / SUPERNET_FOLDER)
        return folder
    torch.set_num_threads(settings.resources.cores)
    train_supernet(
        settings.search_space(),
        settings.supernet,
        data,
        folder,
        lambda phase, done, total: progress(f"train: {phase}", done, total),
    )
    reference = artifacts.put_folder(folder / SUPERNET_FOLDER)
    store.results.record_supernet(key, reference, {"train_images": len(data.train)})
    return folder
