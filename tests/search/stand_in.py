"""A job whose workers and device answer at once, for tests of what happens around them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from compilers.built import BUILD_FILE, Build
from compilers.devices import DeviceConfig
from compilers.errors import MeasurementError
from compilers.measurement import Measurement
from search.artifacts import ArtifactStore
from search.execution import Failure, TaskResult
from search.host_lock import HostLock
from search.job import parse_job
from search.models import JobRow
from search.progress import silent
from search.store import Store
from search.tasks import BuildTask, EvaluationResult, EvaluationTask, FinetuneTask
from search.verification import Verifier
from spaces import Config, SearchSpace
from spaces.population import sample, unique


def measurement(ms: float, aa_ratio: float = 1.0) -> Measurement:
    return Measurement(ms, ms, ms, 40, 10, "clock", aa_ratio, 0.01, 1)


@dataclass
class StandInDevice:
    """Notes what is measured together, and who holds the host lock meanwhile."""

    config: DeviceConfig
    lock: HostLock
    cache: Path | None = None
    broken: set[str] = field(default_factory=set)
    sessions: list[list[str]] = field(default_factory=list)
    held: list[list[tuple[str, str]]] = field(default_factory=list)
    aa_ratios: list[float] = field(default_factory=list)
    before: Callable[[], None] = lambda: None

    def time(self, builds: Sequence[Build]) -> list[Measurement]:
        self.before()
        self.held.append([(h.mode, h.purpose.split()[0]) for h in self.lock.holders()])
        keys = [build.folder.name for build in builds]
        if self.broken.intersection(keys):
            raise MeasurementError("the child crashed")
        self.sessions.append(keys)
        ratio = self.aa_ratios.pop(0) if self.aa_ratios else 1.0
        return [measurement(1.0 + int(key, 16) / 16**16, ratio) for key in keys]


@dataclass
class StandInExecutor:
    """Runs no task, but leaves what each would leave behind."""

    lock: HostLock
    held: list[list[tuple[str, str]]] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    done: list[Any] = field(default_factory=list)
    losses: dict[str, float] = field(default_factory=dict)
    before: Callable[[], None] = lambda: None

    def run_tasks(self, fn, items, *, on_result, retries) -> list[TaskResult]:
        results = []
        for index, item in enumerate(items):
            self.before()
            self.held.append([(h.mode, h.purpose.split()[0]) for h in self.lock.holders()])
            broken = Path(item.subnet).name in self.broken
            failure = Failure("TaskError", "broken", "", crashed=False) if broken else None
            value = None if broken else self._leave(item)
            results.append(TaskResult(index, item, value, failure))
            on_result(results[-1])
            self.done.append(item)
        return results

    def _leave(self, item: EvaluationTask | BuildTask) -> EvaluationResult | float:
        if isinstance(item, EvaluationTask):
            folder = Path(item.subnet)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "subnet.json").write_text(json.dumps(item.config))
            accuracy = 0.5 + int(folder.name, 16) / 16**17
            accuracy += 0.01 * isinstance(item, FinetuneTask)
            return EvaluationResult(accuracy, self.losses.get(folder.name, 1.0), 100, 0.1)
        folder = Path(item.build)
        folder.mkdir(parents=True)
        # Nothing reads more of it than where it lies.
        build = Build(**(dict.fromkeys(Build.__slots__, ()) | {"folder": folder}))
        (folder / BUILD_FILE).write_text(json.dumps(build.to_json()))
        return 0.1


@dataclass
class Stand:
    """A stored job, its verifier, and what it verifies on.

    `session` has what a `JobSession` gives to a `DeviceStudy` and to the loop.
    """

    store: Store
    job: JobRow
    space: SearchSpace
    devices: dict[str, StandInDevice]
    executor: StandInExecutor
    verifier: Verifier
    session: Any

    def configs(self, count: int, seed: int = 0) -> list[Config]:
        import numpy as np

        rows = unique(self.space, sample(self.space, 4 * count, np.random.default_rng(seed)))
        return [self.space.from_indices(row) for row in rows[:count]]


def make_stand(folder: Path, tiny_job: dict[str, Any], *names: str, **change: Any) -> Stand:
    """A stand-in job on devices of these names, everything below `folder`."""
    settings = parse_job(tiny_job | {"devices": list(names)} | change)
    space = settings.search_space()
    store, lock = Store(f"sqlite:///{folder / 'store.db'}"), HostLock(folder)
    store.devices.record_devices({name: ({}, {}) for name in names})
    spec = {"settings": settings.decisive(), "space": space.to_json(), "devices": list(names)}
    job, _ = store.jobs.record_job("stand", spec, space.key, 0)
    devices = {name: StandInDevice(DeviceConfig(name=name), lock) for name in names}
    executor = StandInExecutor(lock)
    verifier = Verifier(
        job_id=job.id,
        settings=settings,
        space=space,
        supernet=folder / "supernet",
        folder=folder / "job",
        devices=devices,
        store=store,
        artifacts=ArtifactStore(str(folder / "artifacts")),
        executor=executor,
        lock=lock,
        progress=silent,
        waiting=lambda _holders, _seconds: None,
    )
    session = SimpleNamespace(
        store=store,
        job=job,
        settings=settings,
        space=space,
        spaces=dict.fromkeys(names, space),
        verifier=verifier,
        lock=lock,
        progress=silent,
        waiting=verifier.waiting,
    )
    return Stand(store, job, space, devices, executor, verifier, session)
