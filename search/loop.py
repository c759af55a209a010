"""The outer loop of a job: train once, then for every device measure, learn, search, verify.

    supernet -> reference configs -> [ predictors -> candidates -> verification ] x generations
             -> precision twins -> final measurement

Whatever a step needs is derived from what the store holds, and a step that finds its results
there does nothing, so that running a job again continues it: no finished evaluation is lost or
repeated, and the candidates of a generation do not depend on when a run was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from predictors import RidgeLatencyPredictor
from search.artifacts import ArtifactStore
from search.devices import device_space, find_devices, record_device
from search.errors import JobConfigError
from search.job import JobSettings, Strategy
from search.lease import Lease
from search.models import JobState, Purpose
from search.progress import Progress
from search.results import at_bits, device_results, job_devices
from search.session import RESOURCES, JobSession
from search.store import Store
from search.study import DeviceStudy
from search.supernets import ensure_supernet, supernet_key
from spaces import Config, SearchSpace, SpaceError, cost
from spaces.population import sample, unique
from supernet import load_data

# Configs from which the reference configs are chosen.
REFERENCE_POOL = 4096


def run_job(
    settings: JobSettings,
    store: Store,
    artifacts: ArtifactStore,
    home: Path,
    progress: Progress,
) -> str:
    """Run a job to its end; the same settings continue the job that they started.

    Args:
        settings: The validated job file.
        store: The open store.
        artifacts: Where supernets and subnets go.
        home: The working home: checkpoints, subnets and builds.
        progress: Told about every step.

    Returns:
        The job's id.

    Raises:
        NetcarveError: A mistake in the job, found before anything is written: an unknown space,
            device or value, a constraint that no config of the space meets, unusable data.
        JobBusyError: Another live process is running this job.
    """
    job, _ = store.jobs.record_job(
        settings.name, _resolve(settings, store), settings.search_space().key, settings.seed
    )
    store.jobs.save_checkpoint(job.id, RESOURCES, settings.resources.model_dump(mode="json"))
    return resume_job(job.id, store, artifacts, home, progress)


def resume_job(
    job_id: str, store: Store, artifacts: ArtifactStore, home: Path, progress: Progress
) -> str:
    """Continue a stored job to its end. See `run_job`.

    Raises:
        UnknownNameError: No such job.
        JobBusyError: Another live process is running it.
    """
    job = store.jobs.job(job_id)
    if store.jobs.state(job_id) is JobState.DONE:
        return job_id
    session = JobSession(store, artifacts, job, home, progress)
    with store.jobs.claim(job_id) as lease, session:
        _Loop(session, lease).run()
        lease.finish(JobState.DONE)
    return job_id


def _resolve(settings: JobSettings, store: Store) -> dict[str, Any]:
    """The job as it is stored: everything that decides its result."""
    space, data = settings.search_space(), load_data(settings.data)
    devices = find_devices(store, settings.devices)
    spaces = {device.name: device_space(store, device, space) for device in devices}
    for name, restricted in spaces.items():
        _check_budget(settings, restricted, name)
    if data.classes != space.family.classes:
        raise JobConfigError(
            f"the data has {data.classes} classes, the space {space.name} {space.family.classes}"
        )
    for device in devices:
        record_device(store, device)
    return {
        "settings": settings.decisive(),
        "space": space.to_json(),
        "log10_size": space.log10_size,
        "supernet_key": supernet_key(settings),
        "data": {split: len(data.split(split)) for split in ("train", "selection", "report")},
        "devices": [device.name for device in devices],
        "device_configs": {device.name: device.config for device in devices},
        "device_spaces": {name: restricted.to_json() for name, restricted in spaces.items()},
        "capabilities": {device.name: device.capabilities.to_json() for device in devices},
    }


def _check_budget(settings: JobSettings, space: SearchSpace, device: str) -> None:
    """Refuse an upper bound on an exact cost that even the smallest subnet misses."""
    smallest = cost(space.layer_specs(space.min_config()))
    known = {"size": smallest.bytes, "macs": smallest.macs, "params": smallest.params}
    for constraint in settings.constraints:
        if constraint.name in known and constraint.max is not None:
            value = float(constraint.in_unit(known[constraint.name]))
            if value > constraint.max:
                raise SpaceError(
                    f"no subnet for device {device!r} can have {constraint.key}: the smallest one "
                    f"has {value:g} {constraint.unit}"
                )


@dataclass
class _Loop:
    """One run of a job's phases."""

    session: JobSession
    lease: Lease

    def run(self) -> None:
        session, settings = self.session, self.session.settings
        with self._phase("train"), session.lock.shared(f"training of {session.job.id}"):
            ensure_supernet(
                settings,
                session.data,
                session.store,
                session.artifacts,
                session.home,
                session.progress,
            )
        studies = {
            name: DeviceStudy(session, name, session.spaces[name])
            for name in job_devices(session.job)
        }
        with self._phase("reference"):
            self._verify(
                {name: self._references(name) for name in studies}, studies, 0, Purpose.REFERENCE
            )
        last = settings.search.generations
        for generation in range(1, last + 1):
            with self._phase("search"):
                candidates = {name: study.candidates(generation) for name, study in studies.items()}
            with self._phase("verify"):
                self._verify(candidates, studies, generation, Purpose.VERIFY)
        with self._phase("verify"):
            twins = {name: self._twins(name, last) for name in studies}
            self._verify(twins, studies, last + 1, Purpose.VERIFY)
        with self._phase("final measurement"):
            for name in studies:
                self._measure_again(name)

    def _references(self, device: str) -> list[Config]:
        """The configs that teach a device's latency predictor most; random search draws them."""
        session, space = self.session, self.session.spaces[device]
        rng = np.random.default_rng([session.job.seed, 0])
        if session.settings.search.strategy is Strategy.RANDOM:
            rows = unique(space, sample(space, REFERENCE_POOL, rng))
            return [
                space.from_indices(r) for r in rows[: session.settings.search.reference_configs]
            ]
        extremes = np.stack([space.min_config().indices, space.max_config().indices])
        pool = unique(space, np.concatenate([extremes, sample(space, REFERENCE_POOL, rng)]))
        count = min(session.settings.search.reference_configs, len(pool))
        chosen = RidgeLatencyPredictor(space).choose(pool, count, rng)
        return [space.from_indices(pool[i]) for i in chosen]

    def _verify(
        self,
        candidates: Mapping[str, Sequence[Config]],
        studies: Mapping[str, DeviceStudy],
        generation: int,
        purpose: Purpose,
    ) -> None:
        """Verify every device's candidates of one generation and enter them into its study."""
        verifier = self.session.verifier
        label = f"generation {generation}" if generation else "reference configs"
        verifier.evaluate([c for configs in candidates.values() for c in configs], label)
        for name, configs in candidates.items():
            self.lease.check()
            predicted = studies[name].predicted(configs, generation) if generation else {}
            extra = {c.key: {"generation": generation, **predicted.get(c.key, {})} for c in configs}
            verifier.measure(name, configs, purpose, label, extra)
            studies[name].enter(configs, generation)

    def _twins(self, device: str, last: int) -> list[Config]:
        """Members of the front with every layer in float32, and in 8 bits, where the device
        executes both: what quantisation gains, architecture held fixed."""
        space = self.session.spaces[device]
        results = device_results(self.session.store, self.session.job, device, last)
        front = results.front
        count = min(self.session.settings.search.precision_twins, len(front))
        places = np.linspace(0, len(front) - 1, count).round().astype(int)
        configs = [
            at_bits(results.space, front[place].config, bits)
            for place in places
            for bits in (32, 8)
        ]
        known = {v.config.key for v in results.verified}
        allowed = [c for c in configs if space.contains(c) and c.key not in known]
        return [space.config(c) for c in dict.fromkeys(allowed)]

    def _measure_again(self, device: str) -> None:
        """Measure the front and the precision twins once more, interleaved with each other."""
        last = self.session.settings.search.generations + 1
        results = device_results(self.session.store, self.session.job, device, last)
        pairs = [v for pair in results.precision_twins() for v in pair]
        # Near misses too: measured anew, one of them may turn out to be on the front.
        again = {v.config.key: v for v in [*results.front, *results.contenders(2), *pairs]}
        extra = {key: {"generation": v.generation} for key, v in again.items()}
        configs = [v.config for v in again.values()]
        self.session.verifier.measure(device, configs, Purpose.FINAL, "final", extra)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self.lease.check()
        with self.session.store.jobs.phase(self.session.job.id, name):
            yield
