"""What a user gets from a job: bundles of the front, a report, a plot, and where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.artifacts import ArtifactStore
from search.data_reader import DataReader
from search.export import export_front
from search.job import JobSettings
from search.loop import resume_job, run_job
from search.progress import Progress
from search.replay import replayed
from search.report import PLOT_NAME, write_report
from search.results import FrontMember
from search.store import Store
from search.stored_job import front, job_devices


@dataclass(frozen=True)
class DeviceDelivery:
    """One device's part.

    Attributes:
        name: The device.
        front: Its front, fastest first; the closest subnets when none is feasible.
        bundles: Folders of the bundles.
    """

    name: str
    front: list[FrontMember]
    bundles: list[Path]


@dataclass(frozen=True)
class Delivery:
    """What a finished job has left.

    Attributes:
        job: The job's id.
        devices: In the order of the job file.
        report: The report, Markdown.
        plot: The plot of the fronts, PNG.
    """

    job: str
    devices: list[DeviceDelivery]
    report: Path
    plot: Path

    def to_json(self) -> dict[str, Any]:
        """All fields, JSON-ready."""
        return {
            "job": self.job,
            "devices": [
                {
                    "device": one.name,
                    "front": [member.to_json() for member in one.front],
                    "bundles": list(map(str, one.bundles)),
                }
                for one in self.devices
            ],
            "report": str(self.report),
            "plot": str(self.plot),
        }


def run(
    settings: JobSettings,
    store: Store,
    artifacts: ArtifactStore,
    home: Path,
    output: Path | None,
    progress: Progress,
    replay: str | None = None,
) -> Delivery:
    """Run a job to its end, or continue the one with the same settings, and deliver.

    Args:
        settings: The job.
        store: Open store.
        artifacts: Artifacts.
        home: Home folder.
        output: Folder of bundles and report; default: `results/JOB` in the home folder.
        progress: Told how far it is.
        replay: A job whose stored results answer instead of a verification.

    Raises:
        NetcarveError: As `search.loop.run_job` and `search.export.export_front`.
    """
    reader = DataReader()
    job_id = run_job(settings, store, artifacts, home, progress, replay, reader)
    return deliver(job_id, store, artifacts, home, output, progress, reader)


def resume(
    job_id: str,
    store: Store,
    artifacts: ArtifactStore,
    home: Path,
    output: Path | None,
    progress: Progress,
) -> Delivery:
    """Continue a job to its end and deliver; see `run`."""
    reader = DataReader()
    job_id = resume_job(job_id, store, artifacts, home, progress, reader)
    return deliver(job_id, store, artifacts, home, output, progress, reader)


def deliver(
    job_id: str,
    store: Store,
    artifacts: ArtifactStore,
    home: Path,
    output: Path | None,
    progress: Progress,
    reader: DataReader | None = None,
) -> Delivery:
    """Write bundles of the front, as many as the job says, the report and the plot; a replay, which
    built nothing, leaves no bundles."""
    is_replay = replayed(store.jobs.job(job_id)) is not None
    bundles = (
        [] if is_replay else export(job_id, store, artifacts, home, output, progress, reader=reader)
    )
    report = write_report(store, job_id, _folder(home, output, job_id))
    # Read after the export: a binary's accuracy on the report split is known from then on.
    devices = [
        DeviceDelivery(
            name,
            front(store, job_id, name),
            [folder for folder in bundles if folder.parent.name == name],
        )
        for name in job_devices(store.jobs.job(job_id))
    ]
    return Delivery(job_id, devices, report, report.with_name(PLOT_NAME))


def export(
    job_id: str,
    store: Store,
    artifacts: ArtifactStore,
    home: Path,
    output: Path | None,
    progress: Progress,
    device: str | None = None,
    keys: Sequence[str] | None = None,
    reader: DataReader | None = None,
) -> list[Path]:
    """Write bundles of the front, of one device's, or of some of its members; their folders.

    Raises:
        NetcarveError: As `search.export.export_front`.
    """
    return export_front(
        store,
        artifacts,
        job_id,
        _folder(home, output, job_id),
        home=home,
        device=device,
        keys=list(keys) if keys else None,
        progress=progress,
        reader=reader,
    )


def _folder(home: Path, output: Path | None, job_id: str) -> Path:
    """Where bundles and report go: `results/JOB` in the home folder unless the user says."""
    return output if output is not None else home / "results" / job_id
