"""The outer loop of a job: train once, then for every device measure, learn, search, verify.

    supernet -> reference configs -> [ predictors -> candidates -> verification ] x generations
             -> precision twins -> final measurement [ -> fine-tuning of the fronts ]

Whatever a step needs is derived from what the store holds, and a step that finds its results
there does nothing, so that running a job again continues it: no finished evaluation is lost or
repeated, and the candidates of a generation do not depend on when a run was interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from search.artifacts import ArtifactStore
from search.data_reader import DataReader
from search.devices import device_space, find_devices, record_devices
from search.finetuning import Finetuner
from search.job import JobSettings, Strategy
from search.lease import Lease
from search.models import PLACES, JobRow, JobState, Purpose
from search.progress import Progress, silent
from search.replay import REPLAY, Replay, check_replay, replayed
from search.results import at_bits
from search.session import RESOURCES, JobSession
from search.store import Store
from search.stored_job import device_results, job_devices
from search.study import DeviceStudy
from search.supernets import ensure_supernet
from search.verification import Verifier
from spaces import Config, DimensionKind, Population, SearchSpace, SpaceError, cost
from spaces.population import sample, unique
from supernet.finetune import check_finetuning
from supernet.trainer import check_training

# Configs from which the reference configs are chosen.
REFERENCE_POOL = 4096


def run_job(
    settings: JobSettings,
    store: Store,
    artifacts: ArtifactStore,
    home: Path,
    progress: Progress,
    replay: str | None = None,
    reader: DataReader | None = None,
) -> str:
    """Run a job to its end; the same settings continue the job that they started.

    Args:
        settings: The validated job file.
        store: The open store.
        artifacts: Where supernets and subnets go.
        home: The working home: checkpoints, subnets and builds.
        progress: Told about every step.
        replay: A job whose stored results answer instead of a verification (see `search.replay`).
        reader: Has read the data, or will, for what follows the job.

    Returns:
        The job's id.

    Raises:
        NetcarveError: A mistake in the job, found before anything is written: an unknown space,
            device or value, a constraint that no config of the space meets, unusable data.
        UnknownNameError: No job to replay of that id.
        SearchError: The job to replay has another space, supernet, data or other devices.
        NewerDatabaseError: A newer Optuna wrote the studies in the database; likewise found first.
        JobBusyError: Another live process is running this job.
    """
    # Opened for its errors, which must not come after the training.
    store.optuna_storage()
    reader = reader or DataReader()
    spec = _resolve(settings, store, progress, reader)
    if replay is not None:
        spec[REPLAY] = check_replay(store.jobs.job(replay), spec)
    job, _ = store.jobs.record_job(settings.name, spec, settings.search_space().key, settings.seed)
    store.jobs.save_checkpoint(job.id, RESOURCES, settings.resources.model_dump(mode="json"))
    return _continue(job, store, artifacts, home, progress, reader)


def resume_job(
    job_id: str,
    store: Store,
    artifacts: ArtifactStore,
    home: Path,
    progress: Progress,
    reader: DataReader | None = None,
) -> str:
    """Continue a stored job to its end. See `run_job`.

    Raises:
        UnknownNameError: No such job.
        NewerDatabaseError: A newer Optuna wrote the studies in the database.
        JobBusyError: Another live process is running it.
    """
    job = store.jobs.job(job_id)
    store.optuna_storage()
    return _continue(job, store, artifacts, home, progress, reader)


def _continue(
    job: JobRow,
    store: Store,
    artifacts: ArtifactStore,
    home: Path,
    progress: Progress,
    reader: DataReader | None,
) -> str:
    if store.jobs.state(job.id) is JobState.DONE:
        return job.id
    session = JobSession(store, artifacts, job, home, progress, reader)
    with store.jobs.claim(job.id) as lease, session:
        _Loop(session, lease).run()
        lease.finish(JobState.DONE)
    return job.id


def _resolve(
    settings: JobSettings,
    store: Store,
    progress: Progress = silent,
    reader: DataReader | None = None,
) -> dict[str, Any]:
    """The job as it is stored: everything that decides its result."""
    space = settings.search_space()
    read = (reader or DataReader()).read(settings.data, progress)
    data = read.splits
    devices = find_devices(store, settings.devices)
    spaces = {device.name: device_space(store, device, space) for device in devices}
    for name, restricted in spaces.items():
        _check_budget(settings, restricted, name)
    check_training(space, settings.supernet, data)
    check_finetuning(settings.finetune, data)
    record_devices(store, devices)
    return {
        "settings": settings.decisive(),
        PLACES: settings.places(),
        "space": space.to_json(),
        "log10_size": space.log10_size,
        "supernet_key": settings.supernet.key(space.key, read.identity),
        "data": {split: len(data.split(split)) for split in ("train", "selection", "report")},
        "devices": [device.name for device in devices],
        "device_configs": {device.name: device.config for device in devices},
        "device_spaces": {name: restricted.to_json() for name, restricted in spaces.items()},
        "capabilities": {device.name: device.capabilities.to_json() for device in devices},
    }


def _check_budget(settings: JobSettings, space: SearchSpace, device: str) -> None:
    """Refuse a bound on an exact cost that even the smallest or the largest subnet misses."""
    ends = [cost(space.layer_specs(c)) for c in (space.min_config(), space.max_config())]
    known = {
        "size": [end.bytes for end in ends],
        "macs": [end.macs for end in ends],
        "params": [end.params for end in ends],
    }
    for constraint in settings.constraints:
        if constraint.name not in known:
            continue
        smallest, largest = (float(constraint.in_unit(v)) for v in known[constraint.name])
        for missed, which, value in (
            (constraint.max is not None and smallest > constraint.max, "smallest", smallest),
            (constraint.min is not None and largest < constraint.min, "largest", largest),
        ):
            if missed:
                raise SpaceError(
                    f"no subnet for device {device!r} can have {constraint.key}: the {which} one "
                    f"has {value:g} {constraint.unit}"
                )


@dataclass
class _Loop:
    """One run of a job's phases."""

    session: JobSession
    lease: Lease

    def run(self) -> None:
        session = self.session
        if replayed(session.job) is None:
            with (
                self._phase("train"),
                session.lock.shared(f"training of {session.job.id}", on_wait=session.waiting),
            ):
                ensure_supernet(session)
        studies = {
            name: DeviceStudy(session, name, session.spaces[name])
            for name in job_devices(session.job)
        }
        self._generation(
            studies, 0, "reference", Purpose.REFERENCE, lambda name: self._references(studies[name])
        )
        for study in studies.values():
            study.hold_out()
        last = session.settings.search.generations
        for generation in range(1, last + 1):
            self._generation(studies, generation, "verify", Purpose.VERIFY)
        self._generation(
            studies, last + 1, "verify", Purpose.VERIFY, lambda name: self._twins(name, last)
        )
        with self._phase("final measurement"):
            for name in studies:
                self._measure_again(name)
        if session.settings.finetune.epochs and replayed(session.job) is None:
            with self._phase("finetune"):
                self._finetune(list(studies))

    def _generation(
        self,
        studies: Mapping[str, DeviceStudy],
        generation: int,
        phase: str,
        purpose: Purpose,
        propose: Callable[[str], list[Config]] | None = None,
    ) -> None:
        """Decide what every device verifies next, verify it, and enter it into the studies."""
        with self._phase("search"):
            proposals = {
                name: study.proposal(generation, partial(propose, name) if propose else None)
                for name, study in studies.items()
            }
            pending = {name: studies[name].pending(p) for name, p in proposals.items()}
        if not any(pending.values()):
            return
        verifier = self._verifier()
        label = f"generation {generation}" if generation else "reference configs"
        with self._phase(phase):
            verifier.evaluate([c for configs in pending.values() for c in configs], label)
            for name, configs in pending.items():
                predicted = proposals[name].predicted
                extra = {
                    c.key: {"generation": generation, **predicted.get(c.key, {})} for c in configs
                }
                verifier.measure(name, configs, purpose, label, extra)
                # In the database: a process that was suspended may not know yet that it lost the
                # job, and a trial, unlike a result, is not entered once by its key.
                self.lease.renew()
                studies[name].enter(proposals[name])

    def _references(self, study: DeviceStudy) -> list[Config]:
        """The configs that teach a device's latency predictor most; random search draws them."""
        session, space = self.session, study.space
        rng = np.random.default_rng([session.job.seed, 0])
        if session.settings.search.strategy is Strategy.RANDOM:
            rows = unique(space, sample(space, REFERENCE_POOL, rng))
            return [
                space.from_indices(r) for r in rows[: session.settings.search.reference_configs]
            ]
        anchors = self._anchors(space)
        pool = unique(space, np.concatenate([anchors, sample(space, REFERENCE_POOL, rng)]))
        count = min(session.settings.search.reference_configs, len(pool)) - len(anchors)
        chosen = study.latency.choose(pool[len(anchors) :], count, rng)
        rows = np.concatenate([anchors, chosen])
        return [space.from_indices(row) for row in rows]

    def _anchors(self, space: SearchSpace) -> Population:
        """The smallest and the largest subnet, which bound the front, and the largest one with its
        narrowest weights, which shows early what bits cost in accuracy."""
        largest = space.max_config()
        narrow = largest.indices.copy()
        for column, dimension in enumerate(space.dimensions):
            if dimension.kind is DimensionKind.W_BITS:
                narrow[column] = 0
        rows = np.stack([space.min_config().indices, largest.indices, narrow])
        return unique(space, rows)

    def _twins(self, device: str, last: int) -> list[Config]:
        """Members of the front with every layer in float32, and in 8 bits, where the device
        executes both: what quantisation gains, architecture held fixed."""
        space = self.session.spaces[device]
        results = device_results(self.session.store, self.session.job, device, last)
        front = results.front
        count = min(self.session.settings.search.precision_twins, len(front))
        places = np.linspace(0, len(front) - 1, count).round().astype(int)
        configs = [
            at_bits(space, front[place].config, bits) for place in places for bits in (32, 8)
        ]
        known = {v.config.key for v in results.verified}
        return [
            space.config(config)
            for config in dict.fromkeys(configs)
            if config is not None and space.contains(config) and config.key not in known
        ]

    def _measure_again(self, device: str) -> None:
        """Measure the front and the precision twins once more, each pair of twins interleaved."""
        last = self.session.settings.search.generations + 1
        results = device_results(self.session.store, self.session.job, device, last)
        pairs = results.precision_twins()
        twins = [v for pair in pairs for v in pair]
        # Near misses too: measured anew, one of them may turn out to be on the front.
        again = {v.config.key: v for v in [*results.front, *results.contenders(2), *twins]}
        self._verifier().measure(
            device,
            [v.config for v in again.values()],
            Purpose.FINAL,
            "final",
            {key: {"generation": v.generation} for key, v in again.items()},
            together=[[v.config for v in pair] for pair in pairs],
        )

    def _finetune(self, devices: Sequence[str]) -> None:
        """Fine-tune the members of every front, each config once, and measure what that gave."""
        session = self.session
        finetuner = Finetuner.beside(replace(session.verifier, check=self.lease.check))
        fronts = {name: device_results(session.store, session.job, name).front for name in devices}
        finetuner.evaluate([v.config for front in fronts.values() for v in front], "fine-tuning")
        for name, front in fronts.items():
            finetuner.measure(
                name,
                [v.config for v in front],
                Purpose.FINETUNED,
                "fine-tuned",
                {v.config.key: {"generation": v.generation} for v in front},
            )

    def _verifier(self) -> Verifier | Replay:
        """What answers for the configs; it stops when the lease is lost."""
        session, check = self.session, self.lease.check
        if (source := replayed(session.job)) is not None:
            return Replay(session.job.id, source, session.store, session.progress, check)
        return replace(session.verifier, check=check)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self.lease.check()
        with self.session.store.jobs.phase(self.session.job.id, name):
            yield
