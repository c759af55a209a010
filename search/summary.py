"""Where jobs stand, for a user: state, counts, times."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from search.models import JobRow
from search.results import FrontMember
from search.store import Store
from search.stored_job import front, job_devices, job_failures, job_space_name


@dataclass(frozen=True)
class JobSummary:
    """One job.

    Attributes:
        id: Its id.
        name: Its name in the job file.
        state: Where it stands; `stopped` when the process that ran it is gone.
        space: Name of its space.
        seed: Its seed.
        devices: Its devices, in the order of the job file.
        created: Seconds since the epoch.
        updated: Likewise, of the last change of state.
        error: Why it failed, if it did.
    """

    id: str
    name: str
    state: str
    space: str
    seed: int
    devices: list[str]
    created: float
    updated: float
    error: str | None

    def to_json(self) -> dict[str, Any]:
        """All fields, JSON-ready."""
        return asdict(self)


@dataclass(frozen=True)
class JobDetails:
    """One job, with what it has done so far.

    Attributes:
        summary: The job.
        evaluations: Verified evaluations.
        measurements: Measurements per device.
        bundles: Bundles per device: config key -> where it lies.
        failures: What failed for good: phase, config key, error.
        seconds: Seconds per phase, over all runs of the job.
        settings: The job file's settings.
    """

    summary: JobSummary
    evaluations: int
    measurements: dict[str, int]
    bundles: dict[str, dict[str, str]]
    failures: list[dict[str, str]]
    seconds: dict[str, float]
    settings: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """All fields, JSON-ready; those of the summary at the top."""
        data = asdict(self)
        return {**data.pop("summary"), **data}


def list_jobs(store: Store) -> list[JobSummary]:
    """All jobs, oldest first."""
    return [_summary(store, job) for job in store.jobs.jobs()]


def show_job(store: Store, job_id: str) -> JobDetails:
    """One job.

    Raises:
        UnknownNameError: No such job; the message lists the known ones.
    """
    job = store.jobs.job(job_id)
    devices = job_devices(job)
    return JobDetails(
        summary=_summary(store, job),
        evaluations=len(store.results.evaluations(job_id)),
        measurements={
            name: len(store.results.measurements(job_id, device=name)) for name in devices
        },
        bundles={
            name: {row.config_key: row.path for row in store.results.bundles(job_id, device=name)}
            for name in devices
        },
        failures=job_failures(store, job_id),
        seconds=store.jobs.phase_seconds(job_id),
        settings=job.settings,
    )


def _summary(store: Store, job: JobRow) -> JobSummary:
    return JobSummary(
        id=job.id,
        name=job.name,
        state=store.jobs.state(job.id).value,
        space=job_space_name(job),
        seed=job.seed,
        devices=job_devices(job),
        created=job.created,
        updated=job.updated,
        error=job.error,
    )


def fronts(store: Store, job_id: str, device: str | None = None) -> dict[str, list[FrontMember]]:
    """The front of every device of a job, or of one, fastest first.

    Raises:
        UnknownNameError: No such job, or it has no such device.
    """
    names = job_devices(store.jobs.job(job_id)) if device is None else [device]
    return {name: front(store, job_id, name) for name in names}
