"""Verified evaluations: accuracy of the extracted subnet, its binary, its measured latency.

Everything here can be repeated: what the store already has is not done again, and each result is
stored the moment it is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compilers.built import Build
from compilers.devices import Device
from compilers.errors import BuildError, CompilerError
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
_STORED = ("median_ms", "p10_ms", "p90_ms", "repeats", "warmup", "clock", "aa_ratio")


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

    def evaluate(self, configs: Sequence[Config], label: str) -> None:
        """Evaluate the accuracy of every config that has no evaluation yet.

        A single failure is recorded and the others go on.

        Raises:
            VerificationError: Everything failed.
        """
        known = {row.config_key for row in self.store.results.evaluations(self.job_id)}
        wanted = [c for c in _distinct(configs) if c.key not in known]
        tasks = [self._evaluation_task(config) for config in wanted]
        done = 0

        def store(result: TaskResult[EvaluationTask, EvaluationResult]) -> None:
            nonlocal done
            config, value = wanted[result.index], result.value
            if value is None:
                self._failed("evaluate", config, result.failure)
            else:
                total = cost(self.space.layer_specs(config))
                self.store.results.record_evaluation(
                    self.job_id,
                    config.key,
                    config.to_json(),
                    accuracy=value.accuracy,
                    loss=value.loss,
                    count=value.count,
                    split="selection",
                    costs={"macs": total.macs, "params": total.params, "bytes": total.bytes},
                    seconds=value.seconds,
                    artifact=self.artifacts.put_folder(self.subnet_folder(config)),
                )
            done += 1
            self.progress(f"{label}: accuracy", done, len(wanted))

        if not tasks:
            return
        self.progress(f"{label}: accuracy", 0, len(wanted))
        with self._busy("accuracy evaluation"):
            retries = self.settings.resources.retries
            found = self.executor.run_tasks(
                evaluate_subnet, tasks, retries=retries, on_result=store
            )
        _refuse_total_failure("evaluation", found, bool(known))

    def build(self, device: str, configs: Sequence[Config], label: str) -> dict[str, Build]:
        """Config key -> build, for every evaluated config that can be built for the device.

        Raises:
            VerificationError: Nothing at all could be built.
        """
        rows = {row.config_key: row for row in self.store.results.evaluations(self.job_id)}
        evaluated = [c for c in _distinct(configs) if c.key in rows]
        for config in evaluated:
            artifact = rows[config.key].artifact
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
            _refuse_total_failure(f"build for {device}", found, len(tasks) < len(evaluated))
        builds = ((c.key, self._existing_build(device, c)) for c in evaluated)
        return {key: build for key, build in builds if build is not None}

    def measure(
        self,
        device: str,
        configs: Sequence[Config],
        purpose: Purpose,
        label: str,
        extra: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Measure every built config that has no measurement for this purpose yet.

        Args:
            device: The device.
            configs: What to measure.
            purpose: Why.
            label: Phase for the progress.
            extra: Config key -> what is stored beside the measurement.

        Raises:
            VerificationError: Nothing at all could be built or measured.
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
        sessions = [ready[i : i + SESSION] for i in range(0, len(ready), SESSION)]
        done = measured = 0
        while sessions:
            session = sessions.pop(0)
            try:
                purpose_text = f"measurement of {self.job_id} on {device}"
                with self.lock.exclusive(purpose_text, on_wait=self.waiting):
                    found = self.devices[device].time([builds[c.key] for c in session])
            except CompilerError as error:
                if len(session) > 1:
                    # One binary that crashes must not cost its neighbours their measurement.
                    sessions = [[config] for config in session] + sessions
                    continue
                failure = Failure(type(error).__name__, str(error), "", crashed=True)
                self._failed(f"measure on {device}", session[0], failure)
                found = []
            for config, measurement in zip(session, found, strict=False):
                values = {name: getattr(measurement, name) for name in _STORED}
                self.store.results.record_measurement(
                    self.job_id,
                    config.key,
                    config.to_json(),
                    device,
                    purpose,
                    extra={**extra.get(config.key, {}), "measurement": measurement.to_json()},
                    **values,
                )
            measured += len(found)
            done += len(session)
            self.progress(f"{label}: measure on {device}", done, len(ready))
        if ready and not known and not measured:
            raise VerificationError(
                f"not one of {len(ready)} binaries could be measured on {device}"
            )

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

    def _evaluation_task(self, config: Config) -> EvaluationTask:
        return EvaluationTask(
            supernet=str(self.supernet),
            data=self.settings.data.model_dump_json(),
            config=config.to_json(),
            subnet=str(self.subnet_folder(config)),
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
    what: str, outcomes: Sequence[TaskResult[Any, Any]], worked_before: bool
) -> None:
    """Stop when a whole batch fails: the cause is not in the configs, and the job can go on once
    it is mended."""
    failures = [o.failure for o in outcomes if o.failure is not None]
    all_failed = bool(outcomes) and len(failures) == len(outcomes)
    if all_failed and (not worked_before or len(failures) >= _SYSTEMATIC):
        first = failures[0]
        raise VerificationError(
            f"every {what} failed ({len(failures)}); the first: {first.error}: {first.message}"
        )


def _distinct(configs: Sequence[Config]) -> list[Config]:
    return list(dict.fromkeys(configs))
