"""One device's Optuna study within a job: its candidates, and its verified trials."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.study import StudyDirection

from search.evolution import EvolutionSettings, make_trial, novel_samples
from search.job import Strategy
from search.results import device_results, job_devices, job_problem
from search.sampler import EvolutionSampler
from search.session import JobSession
from search.surrogate import MetricSurrogate, fit_surrogate
from spaces import Config, SearchSpace


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

    def candidates(self, generation: int) -> list[Config]:
        """The configs to verify in a generation; they depend on earlier generations alone."""
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

    def predicted(self, configs: Sequence[Config], generation: int) -> dict[str, dict[str, float]]:
        """Config key -> predictions made from what was known before the generation."""
        surrogate = self._surrogate(generation) if configs else None
        if surrogate is None:
            return {}
        found = surrogate.predict(np.stack([config.indices for config in configs]))
        columns = {
            "predicted_ms": found["latency"][0],
            "predicted_ms_std": found["latency"][1],
            "predicted_accuracy": found["accuracy"][0],
            "predicted_accuracy_std": found["accuracy"][1],
        }
        return {
            config.key: {name: float(column[i]) for name, column in columns.items()}
            for i, config in enumerate(configs)
        }

    def enter(self, configs: Sequence[Config], generation: int) -> None:
        """Add a trial for every config of a generation that has none; failed ones as failures."""
        results = device_results(self.session.store, self.session.job, self.device, generation)
        known = {v.config.key: v for v in results.verified}
        rows = np.stack([c.indices for c in configs]) if configs else np.empty((0, 0), np.int16)
        for member in self.sampler.pending(self.study, generation, rows):
            verified = known.get(configs[member].key)
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
                    configs[member],
                    verified.metrics if verified is not None else None,
                    self.sampler.generation_attrs(generation, int(member)),
                    attributes,
                )
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
                generation: fit_surrogate(self.space, earlier[self.device], everyone)
            }
        return self._surrogates[generation]
