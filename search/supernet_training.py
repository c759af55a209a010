"""Training the supernet of a job file, without its search."""

from __future__ import annotations

from pathlib import Path

from search.artifacts import ArtifactStore
from search.job import JobSettings
from search.progress import Progress
from search.store import Store
from search.supernet_view import SupernetView, show_supernet
from search.supernet_work import TrainingSession
from search.supernets import ensure_supernet


def train(
    settings: JobSettings, store: Store, artifacts: ArtifactStore, home: Path, progress: Progress
) -> SupernetView:
    """Train the supernet, go on with an interrupted training, or find it trained.

    Jobs with the same space, data and training options use it.

    Raises:
        NetcarveError: As `TrainingSession` and `search.supernets.ensure_supernet`.
    """
    with TrainingSession(settings, store, artifacts, home, progress) as session:
        ensure_supernet(session)
    return show_supernet(store, home, session.supernet_folder.name)
