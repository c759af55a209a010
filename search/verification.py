"""Verified evaluations: accuracy of the extracted subnet, its binary, its measured latency.

Everything here can be repeated: what the store already has is not done again, and each result is
stored the moment it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from compilers.built import Build
from compilers.devices import Device
from compilers.errors import BuildError, CompilerError
from compilers.measurement import Measurement
from search.artifacts import ArtifactStore
from search.errors import VerificationError
from search.execution import Executor, Failure, TaskResult
from search.host_lock import HostLock, OnWait
from search.job import JobSettings
from search.models import Purpose
from search.progress import Progress
from search.store import Store
from search.tasks import BuildTask, EvaluationResult, EvaluationTask, build_binary, evaluate_subnet
from spaces import Config, SearchSpace, cost
from spaces.files import sha256_bytes

# Binaries measured in one interleaved session; a kill loses at most one session.
SESSION = 8
# A session in which one binary measured twice differs by more than this is repeated.
STEADY = 0.03
ATTEMPTS = 3
# What the search may see; the report split is for the exported binaries alone.
SPLIT = "selection"


@dataclass(frozen=True)
class Verifier:
    """Verifies configs of one job.

    Attributes:
        job_id: The job, already in the store.
        settings: Its settings.
        space: The space that the supernet spans.
        supernet: Folder of the trained supernet.
        folder: The job's folder: subnets and builds lie below it.
        devices: Its devices by name.
        store: Where results go.
        artifacts: Where extracted subnets go.
        executor: Runs accuracy evaluations and builds.
        lock: The host's lock.
        progress: Told about every finished item.
        waiting: Told for whom the host lock keeps it waiting.
        check: Called before anything is measured or stored; raises when this process has lost the
            job.
    """

    job_id: str
    settings: JobSettings
    space: SearchSpace
    supernet: Path
    folder: Path
    devices: Mapping[str, Device]
    store: Store
    artifacts: ArtifactStore
    executor: Executor
    lock: HostLock
    progress: Progress
    waiting: OnWait
    check: Callable[[], None] = lambda: None

    # What reports call an evaluation that failed.
    action: ClassVar[str] = "evaluate"

    def evaluate(self, configs: Sequence[Config], label: str) -> None:
        """Evaluate the accuracy of every config that has no evaluation yet.

        A single failure is recorded and the others go on.

        Raises:
            VerificationError: Everything failed.
        """
        known = self.evaluated()
        wanted = [c for c in _distinct(configs) if c.key not in known]
        tasks = [self._evaluation_task(config) for config in wanted]
        done = 0

        def store(result: TaskResult[EvaluationTask, EvaluationResult]) -> None:
            nonlocal done
            self.check()
            config, value = wanted[result.index], result.value
            if value is None:
                self._failed(self.action, config, result.failure)
            else:
                self._record(config, result.item, value)
            done += 1
            self.progress(f"{label}: accuracy", done, len(wanted))

        if not tasks:
            return
        self.progress(f"{label}: accuracy", 0, len(wanted))
        with self._busy("accuracy evaluation"):
            retries = self.settings.resources.retries
            found = self.executor.run_tasks(self._work(), tasks, retries=retries, on_result=store)
        _refuse_total_failure("evaluation", _failures(found), len(found), bool(known))

    def build(self, device: str, configs: Sequence[Config], label: str) -> dict[str, Build]:
        """Config key -> build, for every evaluated config that can be built for the device.

        Raises:
            VerificationError: Nothing at all could be built.
        """
        artifacts = self.evaluated()
        evaluated = [c for c in _distinct(configs) if c.key in artifacts]
        for config in evaluated:
            artifact = artifacts[config.key]
            if artifact is not None and not self.subnet_folder(config).exists():
                self.artifacts.get_folder(artifact, self.subnet_folder(config))
        wanted = [c for c in evaluated if self._existing_build(device, c) is None]
        tasks = [
            BuildTask(
                device=self.devices[device].config.model_dump_json(),
                data=self.settings.data.model_dump_json(),
                subnet=str(self.subnet_folder(config)),
                build=str(self.build_folder(device, config)),
            )
            for config in wanted
        ]
        done = 0

        def report(result: TaskResult[BuildTask, float]) -> None:
            nonlocal done
            self.check()
            done += 1
            if result.failure is not None:
                self._failed(f"build for {device}", wanted[result.index], result.failure)
            self.progress(f"{label}: build for {device}", done, len(wanted))

        if tasks:
            self.progress(f"{label}: build for {device}", 0, len(wanted))
            with self._busy("compilation"):
                retries = self.settings.resources.retries
                found = self.executor.run_tasks(
                    build_binary, tasks, retries=retries, on_result=report
                )
            worked_before = len(tasks) < len(evaluated)
            _refuse_total_failure(
                f"build for {device}", _failures(found), len(found), worked_before
            )
        builds = ((c.key, self._existing_build(device, c)) for c in evaluated)
        return {key: build for key, build in builds if build is not None}

    def measure(
        self,
        device: str,
        configs: Sequence[Config],
        purpose: Purpose,
        label: str,
        extra: Mapping[str, Mapping[str, Any]],
        together: Sequence[Sequence[Config]] = (),
    ) -> None:
        """Measure every built config that has no measurement for this purpose yet.

        Args:
            device: The device.
            configs: What to measure.
            purpose: Why.
            label: Phase for the progress.
            extra: Config key -> what is stored beside the measurement.
            together: Groups of `configs` whose latencies are compared with each other: each is
                measured within one session.

        Raises:
            VerificationError: Nothing at all could be built or measured, or nothing of a batch
                too large for that to be an accident.
        """
        known = {
            row.config_key
            for row in self.store.results.measurements(self.job_id, device=device, purpose=purpose)
        }
        wanted = [c for c in _distinct(configs) if c.key not in known]
        builds = self.build(device, wanted, label)
        ready = [c for c in wanted if c.key in builds]
        if ready:
            self.progress(f"{label}: measure on {device}", 0, len(ready))
        sessions = _sessions(ready, together)
        failures: list[Failure] = []
        done = 0
        while sessions:
            groups = sessions.pop(0)
            session = [config for group in groups for config in group]
            try:
                purpose_text = f"measurement of {self.job_id} on {device}"
                with self.lock.exclusive(purpose_text, on_wait=self.waiting):
                    # Whoever took the job over may have held the lock until here.
                    self.check()
                    found = self._time(device, [builds[c.key] for c in session])
            except CompilerError as error:
                if len(session) > 1:
                    # One binary that crashes must not cost its neighbours their measurement.
                    parts = groups if len(groups) > 1 else [[config] for config in session]
                    sessions = [[part] for part in parts] + sessions
                    continue
                failures.append(Failure(type(error).__name__, str(error), "", crashed=True))
                found = []
            self.check()
            if not found:
                self._failed(f"measure on {device}", session[0], failures[-1])
            for config, measurement in zip(session, found, strict=False):
                self.store.results.record_measurement(
                    self.job_id,
                    config.key,
                    config.to_json(),
                    device,
                    purpose,
                    measurement.to_json(),
                    extra.get(config.key, {}),
                )
            done += len(session)
            self.progress(f"{label}: measure on {device}", done, len(ready))
        _refuse_total_failure(f"measurement on {device}", failures, len(ready), bool(known))

    def _time(self, device: str, builds: Sequence[Build]) -> list[Measurement]:
        """Measure one session; one whose A/A comparison fails says little and is repeated, and the
        steadiest counts."""
        sessions: list[list[Measurement]] = []
        while len(sessions) < ATTEMPTS:
            sessions.append(self.devices[device].time(builds))
            if _unsteadiness(sessions[-1]) <= STEADY:
                break
        return min(sessions, key=_unsteadiness)

    def evaluated(self) -> dict[str, str | None]:
        """Config key -> reference of the extracted subnet, for every config evaluated so far."""
        rows = self.store.results.evaluations(self.job_id)
        return {row.config_key: row.artifact for row in rows}

    def subnet_folder(self, config: Config) -> Path:
        """Where the extracted subnet of a config lies."""
        return self.folder / "subnets" / config.key

    def build_folder(self, device: str, config: Config) -> Path:
        """Where the binary of a config for a device lies; another ISA has another folder."""
        settings = self.devices[device].config.model_dump_json().encode()
        return self.folder / "builds" / f"{device}-{sha256_bytes(settings)[:8]}" / config.key

    def _existing_build(self, device: str, config: Config) -> Build | None:
        try:
            return Build.load(self.build_folder(device, config))
        except BuildError:
            return None

    def _work(self) -> Callable[[Any], EvaluationResult]:
        """What a worker does for an evaluation."""
        return evaluate_subnet

    def _evaluation_task(self, config: Config) -> EvaluationTask:
        return EvaluationTask(
            supernet=str(self.supernet),
            data=self.settings.data.model_dump_json(),
            config=config.to_json(),
            subnet=str(self.subnet_folder(config)),
            split=SPLIT,
        )

    def _record(self, config: Config, task: EvaluationTask, found: EvaluationResult) -> None:
        total = cost(self.space.layer_specs(config))
        self.store.results.record_evaluation(
            self.job_id,
            config.key,
            config.to_json(),
            accuracy=found.accuracy,
            loss=found.loss,
            count=found.count,
            split=task.split,
            costs={"macs": total.macs, "params": total.params, "bytes": total.bytes},
            seconds=found.seconds,
            artifact=self.artifacts.put_folder(self.subnet_folder(config)),
        )

    def _busy(self, purpose: str) -> AbstractContextManager[None]:
        return self.lock.shared(f"{purpose} of {self.job_id}", on_wait=self.waiting)

    def _failed(self, phase: str, config: Config, failure: Failure | None) -> None:
        assert failure is not None
        data = {"config_key": config.key, "error": failure.error, "message": failure.message}
        self.store.jobs.record_event(self.job_id, "failure", phase, data=data)


# So many failures and not one success are no accident of a single config.
_SYSTEMATIC = 3


def _refuse_total_failure(
    what: str, failures: Sequence[Failure], total: int, worked_before: bool
) -> None:
    """Stop when a whole batch of `total` fails: the cause is not in the configs, and the job can
    go on once it is mended."""
    all_failed = total > 0 and len(failures) == total
    if all_failed and (not worked_before or total >= _SYSTEMATIC):
        first = failures[0]
        raise VerificationError(
            f"every {what} failed ({total}); the first: {first.error}: {first.message}"
        )


def _unsteadiness(session: Sequence[Measurement]) -> float:
    return max((abs(m.aa_ratio - 1) for m in session), default=0.0)


def _failures(outcomes: Sequence[TaskResult[Any, Any]]) -> list[Failure]:
    return [o.failure for o in outcomes if o.failure is not None]


def _sessions(
    configs: Sequence[Config], together: Sequence[Sequence[Config]]
) -> list[list[list[Config]]]:
    """Sessions of about `SESSION` configs as lists of groups; no group is split.

    Args:
        configs: Different configs.
        together: Groups; members that are not in `configs` are left out.
    """
    left = dict.fromkeys(configs)
    groups = []
    for wanted in [*together, *([config] for config in configs)]:
        group = [config for config in _distinct(wanted) if config in left]
        for config in group:
            del left[config]
        if group:
            groups.append(group)
    sessions: list[list[list[Config]]] = []
    room = 0
    for group in groups:
        if not sessions or len(group) > room:
            sessions.append([])
            room = SESSION
        sessions[-1].append(group)
        room -= len(group)
    return sessions


def _distinct(configs: Sequence[Config]) -> list[Config]:
    return list(dict.fromkeys(configs))
