"""The report of a job: fronts, predictors' scores, configs as a table, seeds and timings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from predictors import scores
from search.models import JobRow
from search.objectives import Constraint
from search.plots import plot_fronts
from search.replay import replayed
from search.report_tables import (
    CONFIG_COLUMNS,
    MEMBER_COLUMNS,
    TWIN_COLUMNS,
    config_row,
    finetuned_section,
    member_row,
    small_subnet,
    table,
    twin_row,
)
from search.results import DeviceResults, FrontMember
from search.store import Store
from search.stored_job import device_results, job_devices, job_failures, job_space_name
from spaces.files import atomic_write_bytes, atomic_write_text

PLOT_NAME = "front.png"
REPORT_NAME = "report.md"
JSON_NAME = "report.json"
FAILURE_COLUMNS = ("phase", "config", "error")

Scores = dict[str, float]


@dataclass(frozen=True)
class DeviceReport:
    """One device's part of a report.

    Attributes:
        name: The device.
        capabilities: What its probe found.
        verified: Number of verified evaluations.
        feasible: Whether any verified subnet meets the constraints.
        front: The front, or the closest subnets when none is feasible.
        distinct: Members whose latencies differ by more than the noise.
        noise: Relative noise of the measurements.
        throttled: Verified latencies from sessions in which the machine became slower.
        latency_scores: Latency predictor on configs it had not seen measured.
        accuracy_scores: Accuracy predictor on configs it had not seen evaluated.
        precision_twins: Architectures verified in float32 and in 8 bits.
        results: Everything verified, for the plot.
    """

    name: str
    capabilities: dict[str, Any]
    verified: int
    feasible: bool
    front: list[FrontMember]
    distinct: int
    noise: float
    throttled: int
    latency_scores: Scores
    accuracy_scores: Scores
    precision_twins: list[tuple[FrontMember, FrontMember]]
    results: DeviceResults

    def to_json(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {
            "device": self.name,
            "capabilities": self.capabilities,
            "verified": self.verified,
            "feasible": self.feasible,
            "front": [member.to_json() for member in self.front],
            "distinct_latencies": self.distinct,
            "noise": self.noise,
            "throttled": self.throttled,
            "latency_predictor": self.latency_scores,
            "accuracy_predictor": self.accuracy_scores,
            "precision_twins": [
                {"float32": a.to_json(), "int8": b.to_json()} for a, b in self.precision_twins
            ],
        }


@dataclass(frozen=True)
class JobReport:
    """Everything a report says. Predicted numbers are predicted, measured ones measured."""

    job: JobRow
    state: str
    devices: list[DeviceReport]
    seconds: dict[str, float]
    supernet: dict[str, Any]
    failures: list[dict[str, str]]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "job": self.job.id,
            "state": self.state,
            "seed": self.job.seed,
            "settings": self.job.settings,
            "supernet": self.supernet,
            "devices": [device.to_json() for device in self.devices],
            "seconds": self.seconds,
            "failures": self.failures,
        }

    def to_markdown(self) -> str:
        """The report as Markdown; the plot stands beside it as `front.png`."""
        lines = [f"# {self.job.id}", "", *self._summary(), "", f"![Fronts]({PLOT_NAME})", ""]
        for device in self.devices:
            lines += _device_section(device, self.job.spec["settings"])
        if self.failures:
            lines += ["## Failures", "", *table(FAILURE_COLUMNS, self._failed()), ""]
        lines += ["## Timings", "", *table(("phase", "seconds"), self._timings()), ""]
        return "\n".join(lines)

    def _summary(self) -> list[str]:
        settings, data = self.job.spec["settings"], self.job.spec["data"]
        source = replayed(self.job)
        log10 = self.job.spec["log10_size"]
        return [
            f"- state: {self.state}",
            *([f"- replayed from {source}: measured then, not again"] if source else []),
            f"- space: {job_space_name(self.job)}, 10^{log10:.1f} configs",
            f"- data: {settings['data']['name']}, split seed {settings['data']['seed']}: "
            f"{data['train']} train, {data['selection']} selection, {data['report']} report images",
            f"- seeds: search {self.job.seed}, supernet {settings['supernet']['seed']}, "
            f"split {settings['data']['seed']}",
            "- accuracy is measured on the selection split, which the search uses; report accuracy "
            "is the compiled binary's on the report split, which the search never sees",
            "- predicted latency was predicted before the subnet was measured; that of a reference "
            "config, which is measured first, from the other reference configs",
        ]

    def _failed(self) -> list[tuple[str, str, str]]:
        return [
            (f["phase"], f["config_key"], f"{f['error']}: {f['message']}".replace("\n", " ")[:200])
            for f in self.failures
        ]

    def _timings(self) -> list[tuple[str, str]]:
        rows = [(phase, f"{seconds:.1f}") for phase, seconds in self.seconds.items()]
        return [*rows, ("total", f"{sum(self.seconds.values()):.1f}")]


def job_report(store: Store, job_id: str) -> JobReport:
    """Gather the report of a job, finished or not.

    Raises:
        UnknownNameError: No such job.
    """
    job = store.jobs.job(job_id)
    row = store.results.supernet(job.spec["supernet_key"])
    return JobReport(
        job=job,
        state=store.jobs.state(job_id).value,
        devices=[
            _device_report(device_results(store, job, name), name, job) for name in job_devices(job)
        ],
        seconds=store.jobs.phase_seconds(job_id),
        failures=job_failures(store, job_id),
        supernet={"key": job.spec["supernet_key"], "metrics": row.metrics if row else None},
    )


def write_report(store: Store, job_id: str, folder: str | Path) -> Path:
    """Write `report.md`, `report.json` and `front.png`; returns the Markdown file's path.

    Raises:
        UnknownNameError: No such job.
    """
    report, target = job_report(store, job_id), Path(folder)
    plot = plot_fronts({device.name: device.results for device in report.devices})
    atomic_write_bytes(target / PLOT_NAME, plot)
    atomic_write_text(target / JSON_NAME, json.dumps(report.to_json(), indent=2) + "\n")
    atomic_write_text(target / REPORT_NAME, report.to_markdown())
    return target / REPORT_NAME


def _device_report(results: DeviceResults, name: str, job: JobRow) -> DeviceReport:
    return DeviceReport(
        name=name,
        capabilities=job.spec["capabilities"][name],
        verified=len(results.verified),
        feasible=results.feasible,
        front=results.members(),
        distinct=results.distinct(),
        noise=results.noise,
        throttled=results.throttled,
        latency_scores=_held_out(
            [(v.measured_ms, v.predicted_ms, v.predicted_ms_std) for v in results.verified]
        ),
        accuracy_scores=_held_out(
            [(v.accuracy, v.predicted_accuracy, v.predicted_accuracy_std) for v in results.verified]
        ),
        precision_twins=[
            (results.member(a), results.member(b)) for a, b in results.precision_twins()
        ],
        results=results,
    )


def _held_out(rows: Sequence[tuple[float, float | None, float | None]]) -> Scores:
    """Scores of the predictions that were made before the value was known."""
    known = np.array([row for row in rows if row[1] is not None], np.float64)
    if len(known) < 3:
        return {"count": float(len(known))}
    return {"count": float(len(known)), **scores(known[:, 0], known[:, 1], known[:, 2])}


def _device_section(device: DeviceReport, settings: dict[str, Any]) -> list[str]:
    capabilities = device.capabilities
    lines = [
        f"## {device.name}",
        "",
        f"{capabilities['hardware']}, restricted to {capabilities['isa']}, "
        f"{capabilities['threads']} thread(s), batch {capabilities['batch']}. "
        f"{device.verified} verified subnets; {device.distinct} members of the front have "
        f"latencies that differ by more than the measured noise of {100 * device.noise:.1f} %.",
        "",
    ]
    if not device.verified:
        return [*lines, "Nothing has been verified yet.", ""]
    if device.throttled:
        lines += [f"{device.throttled} were measured while the machine became slower.", ""]
    if not device.feasible:
        bounds = ", ".join(Constraint.model_validate(c).key for c in settings["constraints"])
        lines += [f"**No verified subnet meets {bounds}: these are the closest.**", ""]
    lines += [*table(MEMBER_COLUMNS, [member_row(m) for m in device.front]), ""]
    lines += small_subnet(device.front)
    lines += finetuned_section(device.front, settings)
    lines += ["### Predictors on configs they had not seen", ""]
    for metric, values in (
        ("latency", device.latency_scores),
        ("accuracy", device.accuracy_scores),
    ):
        text = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
        lines.append(f"- {metric}: {text}")
    lines += ["", "### Float32 and 8 bits side by side", ""]
    lines += table(TWIN_COLUMNS, [twin_row(a, b) for a, b in device.precision_twins])
    lines += ["", "### Configs", ""]
    lines += table(CONFIG_COLUMNS, [config_row(m) for m in device.front])
    return [*lines, ""]
