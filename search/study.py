"""One device's Optuna study within a job: its candidates, and its verified trials."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import optuna
from optuna.study import StudyDirection

from search.evolution import EvolutionSettings, make_trial, novel_samples
from search.job import Strategy
from search.kernel_latencies import job_kernel_latencies
from search.latency_learning import DeviceLatency, device_latency
from search.sampler import EvolutionSampler
from search.session import JobSession
from search.stored_job import device_results, held_out_name, job_devices, job_problem
from search.surrogate import MetricSurrogate, fit_surrogate
from spaces import Config, SearchSpace

_NOTHING = np.empty((0, 0), np.int16)


@dataclass(frozen=True)
class Proposal:
    """The configs that one generation verifies on a device.

    Attributes:
        generation: Its number; 0 are the reference configs.
        configs: What is verified, in order.
        predicted: Config key -> predictions made before the verification.
    """

    generation: int
    configs: list[Config]
    predicted: dict[str, dict[str, float]]


class DeviceStudy:
    """The study `JOB/DEVICE`, in the same database as the store.

    Args:
        session: The job's session.
        device: One of its devices.
        space: What the search may use on it.
    """

    def __init__(self, session: JobSession, device: str, space: SearchSpace) -> None:
        self.session = session
        self.device = device
        self.space = space
        self.problem = job_problem(session.job)
        settings = session.settings.search
        self.sampler = EvolutionSampler(
            space,
            self.problem,
            population_size=settings.batch,
            # Devices of one job search independently of each other.
            seed=zlib.crc32(f"{session.job.seed}/{device}".encode()),
            inner=EvolutionSettings(settings.population, settings.inner_generations),
        )
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(
            storage=session.store.optuna_storage(),
            study_name=f"{session.job.id}/{device}",
            directions=[StudyDirection[d.upper()] for d in self.problem.directions],
            sampler=self.sampler,
            load_if_exists=True,
        )
        self._surrogates: dict[int, MetricSurrogate | None] = {}

    def proposal(
        self, generation: int, propose: Callable[[], list[Config]] | None = None
    ) -> Proposal:
        """What a generation verifies, decided once and stored before anything is verified.

        Args:
            generation: Its number.
            propose: Where its configs come from; default: the strategy.
        """
        store, job = self.session.store, self.session.job
        name = f"proposal/{self.device}/{generation}"
        stored = store.jobs.checkpoint(job.id, name)
        if stored is None:
            configs = propose() if propose is not None else self._ask(generation)
            stored = {
                "configs": [config.to_json() for config in configs],
                "predicted": self._predicted(configs, generation),
            }
            store.jobs.save_checkpoint(job.id, name, stored)
        configs = [self.space.config(values) for values in stored["configs"]]
        return Proposal(generation, configs, dict(stored["predicted"]))

    def pending(self, proposal: Proposal) -> list[Config]:
        """The configs of a proposal that have no trial yet."""
        rows = np.stack([c.indices for c in proposal.configs]) if proposal.configs else _NOTHING
        members = self.sampler.pending(self.study, proposal.generation, rows)
        return [proposal.configs[member] for member in members]

    def _ask(self, generation: int) -> list[Config]:
        settings = self.session.settings.search
        if settings.strategy is Strategy.RANDOM:
            seen = self.sampler.history(self.study, generation).seen
            rng = np.random.default_rng([self.sampler.seed, generation])
            rows = novel_samples(self.space, settings.batch, seen, rng)
        else:
            rows = self.sampler.ask_generation(
                self.study, generation, settings.batch, self._surrogate(generation)
            )
        return [self.space.from_indices(row) for row in rows]

    def _predicted(self, configs: Sequence[Config], generation: int) -> dict[str, dict[str, float]]:
        """Config key -> predictions made from what was known before the generation.

        Without an accuracy where another device's search has had it evaluated: the surrogate
        learnt that one.
        """
        surrogate = self._surrogate(generation) if configs and generation else None
        if surrogate is None:
            return {}
        store, job = self.session.store, self.session.job
        evaluated = {row.config_key for row in store.results.evaluations(job.id)}
        found = surrogate.predict(np.stack([config.indices for config in configs]))
        names = {"latency": "predicted_ms", "accuracy": "predicted_accuracy"}
        predicted: dict[str, dict[str, float]] = {config.key: {} for config in configs}
        for metric, name in names.items():
            mean, std = found[metric]
            for i, config in enumerate(configs):
                if metric != "accuracy" or config.key not in evaluated:
                    predicted[config.key] |= {name: float(mean[i]), f"{name}_std": float(std[i])}
        return predicted

    def enter(self, proposal: Proposal) -> None:
        """Add a trial for every config of a proposal that has none; failed ones as failures."""
        generation, configs = proposal.generation, proposal.configs
        results = device_results(self.session.store, self.session.job, self.device, generation)
        known = {v.config.key: v for v in results.verified}
        pending = set(self.pending(proposal))
        for member, config in enumerate(configs):
            if config not in pending:
                continue
            verified = known.get(config.key)
            attributes: dict[str, Any] = {}
            if verified is not None:
                attributes = {
                    "predicted_ms": verified.predicted_ms,
                    "p10_ms": verified.measurement.p10_ms,
                    "p90_ms": verified.measurement.p90_ms,
                }
            self.study.add_trial(
                make_trial(
                    self.space,
                    self.problem,
                    config,
                    verified.metrics if verified is not None else None,
                    self.sampler.generation_attrs(generation, member),
                    attributes,
                )
            )

    def hold_out(self) -> None:
        """Predict every reference config's latency from the others, and store that.

        What was measured first was never predicted; this is its prediction for tables and scores.
        """
        store, job, name = self.session.store, self.session.job, held_out_name(self.device)
        verified = device_results(store, job, self.device, 0).verified
        predictor, encoding = self.latency.unfitted(), self.latency.encoding
        if (
            store.jobs.checkpoint(job.id, name) is not None
            or len(verified) <= predictor.min_samples
        ):
            return
        rows = encoding(np.stack([self.space.config(v.config).indices for v in verified]))
        latency = np.array([v.measured_ms for v in verified])
        found = {}
        for i, one in enumerate(verified):
            others = np.arange(len(verified)) != i
            mean, std = predictor.fit(rows.take(others), latency[others]).predict(
                rows.take(~others)
            )
            found[one.config.key] = {
                "predicted_ms": float(mean[0]),
                "predicted_ms_std": float(std[0]),
            }
        store.jobs.save_checkpoint(job.id, name, found)

    @cached_property
    def latency(self) -> DeviceLatency:
        """The predictor, with what the store and the kernel library knew when the job asked."""
        session = self.session
        kernels = job_kernel_latencies(
            session.store,
            session.job,
            self.device,
            self.space,
            session.verifier.devices.get(self.device),
            session.progress,
        )
        return device_latency(
            session.store,
            session.job,
            self.device,
            self.space,
            session.settings.search.latency_predictor,
            kernels,
        )

    def _surrogate(self, generation: int) -> MetricSurrogate | None:
        if generation not in self._surrogates:
            store, job = self.session.store, self.session.job
            earlier = {
                name: device_results(store, job, name, generation - 1).verified
                for name in job_devices(job)
            }
            everyone = [v for verified in earlier.values() for v in verified]
            self._surrogates = {
                generation: fit_surrogate(
                    self.session.settings.search,
                    self.space,
                    earlier[self.device],
                    everyone,
                    self.latency,
                )
            }
        return self._surrogates[generation]
