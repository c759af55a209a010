"""A job as the store holds it: its space and devices, what was found and what failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from compilers.measurement import Measurement
from search.finetuned import finetuned
from search.models import JobRow, MeasurementRow, Purpose
from search.objectives import Constraint, Objective, Problem
from search.results import DeviceResults, FrontMember, Verified
from search.store import Store
from spaces import Cost, SearchSpace, UnknownNameError
from spaces.inline import InlineSpace


def job_space(job: JobRow) -> SearchSpace:
    """The space that the job's supernet spans."""
    return SearchSpace.from_json(job.spec["space"])


def job_space_name(job: JobRow) -> str:
    """What reports call that space."""
    space = job.spec["settings"]["space"]
    return space if isinstance(space, str) else InlineSpace.model_validate(space).name


def job_problem(job: JobRow) -> Problem:
    """The job's objectives and constraints."""
    settings = job.spec["settings"]
    return Problem(
        tuple(map(Objective.model_validate, settings["objectives"])),
        tuple(map(Constraint.model_validate, settings["constraints"])),
    )


def device_results(
    store: Store, job: JobRow, device: str, through: int | None = None
) -> DeviceResults:
    """Everything verified for one device, in the order of the search.

    Args:
        store: The open store.
        job: The job.
        device: One of its devices.
        through: Only generations up to this one, with the measurements that the search saw;
            default: everything, and a subnet that was measured again at the end counts with that
            last measurement. Fine-tuned subnets stand beside those that the search has found.
    """
    space = job_space(job)
    evaluations = {row.config_key: row for row in store.results.evaluations(job.id)}
    measured: dict[str, MeasurementRow] = {}
    first: dict[str, MeasurementRow] = {}
    tuned: dict[str, MeasurementRow] = {}
    for row in store.results.measurements(job.id, device=device):
        if row.purpose == Purpose.FINETUNED.value:
            tuned[row.config_key] = row
        elif through is None or row.purpose != Purpose.FINAL.value:
            first.setdefault(row.config_key, row)
            measured[row.config_key] = row
    held_out = store.jobs.checkpoint(job.id, held_out_name(device)) or {}
    verified = []
    for key, row in first.items():
        evaluation, last = evaluations.get(key), measured[key]
        generation = int(row.extra["generation"])
        if evaluation is None or (through is not None and generation > through):
            continue
        verified.append(
            Verified(
                config=space.config(evaluation.config),
                generation=generation,
                accuracy=evaluation.accuracy,
                loss=evaluation.loss,
                costs=Cost(**evaluation.costs),
                measurement=Measurement.from_json(last.measurement),
                purpose=Purpose(last.purpose),
                measured_at=last.created,
                **{name: {**held_out.get(key, {}), **row.extra}.get(name) for name in _PREDICTIONS},
            )
        )
    return DeviceResults(
        space,
        verified,
        job_problem(job),
        {
            row.config_key: float(row.metrics["report_accuracy"])
            for row in store.results.bundles(job.id, device=device)
        },
        _finetuned(store, job, verified, tuned),
    )


def _finetuned(
    store: Store, job: JobRow, verified: Sequence[Verified], measured: Mapping[str, MeasurementRow]
) -> dict[str, Verified]:
    """Config key -> its fine-tuned subnet, for those that have been evaluated and measured."""
    evaluated = finetuned(store, job.id) if measured else {}
    found = {}
    for one in verified:
        key = one.config.key
        if key in evaluated and key in measured:
            found[key] = replace(
                one,
                accuracy=evaluated[key].accuracy,
                loss=evaluated[key].loss,
                measurement=Measurement.from_json(measured[key].measurement),
                purpose=Purpose.FINETUNED,
                measured_at=measured[key].created,
            )
    return found


_PREDICTIONS = (
    "predicted_ms",
    "predicted_ms_std",
    "predicted_accuracy",
    "predicted_accuracy_std",
)


def held_out_name(device: str) -> str:
    """The job's checkpoint with what each reference config's latency is predicted to be from the
    others: config key -> predictions."""
    return f"held-out/{device}"


def job_devices(job: JobRow) -> list[str]:
    """The names of the job's devices, in the order of the job file."""
    return [str(name) for name in job.spec["devices"]]


def job_failures(store: Store, job_id: str) -> list[dict[str, str]]:
    """What failed for good: phase, config key, class and message of the error, oldest first."""
    return [
        {"phase": event.phase, **{k: str(v) for k, v in event.data.items()}}
        for event in store.jobs.events(job_id, "failure")
    ]


def front(store: Store, job_id: str, device: str) -> list[FrontMember]:
    """The front of one device of a job, fastest first.

    Raises:
        UnknownNameError: No such job, or the job has no such device.
    """
    job = store.jobs.job(job_id)
    if device not in job_devices(job):
        raise UnknownNameError("device of this job", device, job_devices(job))
    return device_results(store, job, device).members()
