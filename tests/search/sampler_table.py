"""A table to search in place of real evaluations, and the sampler that searches it."""

from __future__ import annotations

import numpy as np
import optuna
from optuna.distributions import IntDistribution
from optuna.trial import TrialState

from predictors import GaussianProcessAccuracyPredictor, RidgeLatencyPredictor, SpaceEncoding
from predictors.features import FEATURES, NOMINAL_MS, cost_features, totals
from search.evolution import (
    EvolutionSettings,
    config_of_trial,
    distributions,
    make_trial,
)
from search.sampler import EvolutionSampler

optuna.logging.set_verbosity(optuna.logging.ERROR)
BATCH = 6
SMALL = EvolutionSettings(population=48, generations=12)


def subnet_bytes(space, population):
    """Size (n,) of every subnet, bytes."""
    return np.rint(np.exp(totals(cost_features(space, population))[:, 1]))


class Table:
    """A deterministic evaluator: accuracy saturates, latency adds up."""

    def __init__(self, space, seed):
        rng = np.random.default_rng(seed)
        self.space = space
        self.effects = np.abs(rng.normal(0, 0.1, len(space.names)))
        self.rates = NOMINAL_MS * np.exp(rng.normal(0, 0.5, len(FEATURES)))

    def metrics(self, population):
        features = cost_features(self.space, population)
        steps = population / np.maximum(self.space.cardinalities - 1, 1)
        lost = np.exp(1 - 0.5 * (totals(features)[:, 0] - 14) - steps @ self.effects)
        size = subnet_bytes(self.space, population)
        return {"accuracy": 0.988 - 0.15 * lost, "latency": features @ self.rates, "size": size}


class Fitted:
    def __init__(self, space, history):
        values = np.array([trial.values for trial in history.trials])
        self.space = space
        accuracy = GaussianProcessAccuracyPredictor(space)
        self.accuracy = accuracy.fit(history.population, values[:, 0] / 100)
        self.encoding = SpaceEncoding(space)
        self.latency = RidgeLatencyPredictor(self.encoding.schema).fit(
            self.encoding(history.population), values[:, 1]
        )

    def predict(self, population):
        size = subnet_bytes(self.space, population)
        return {
            "accuracy": self.accuracy.predict(population),
            "latency": self.latency.predict(self.encoding(population)),
            "size": (size, np.zeros(len(population))),
        }


def make_sampler(space, problem, seed=0, surrogate=False):
    def fit(history):
        return Fitted(space, history) if len(history) >= 8 else None

    return EvolutionSampler(
        space, problem, BATCH, seed, fit_surrogate=fit if surrogate else None, inner=SMALL
    )


def record(study, sampler, table, generation, members, rows):
    metrics = table.metrics(members)
    for row in rows:
        config = sampler.space.from_indices(members[row])
        single = {name: float(values[row]) for name, values in metrics.items()}
        attrs = sampler.generation_attrs(generation, int(row))
        study.add_trial(make_trial(sampler.space, sampler.problem, config, single, attrs))


def run_loop(study, sampler, table, generations):
    for generation in range(generations):
        members = sampler.ask_generation(study, generation, BATCH if generation else 10)
        record(study, sampler, table, generation, members, range(len(members)))


def trial_set(study, space):
    return {
        (t.system_attrs["EvolutionSampler:generation"], t.user_attrs["config"], tuple(t.values))
        for t in study.get_trials(states=[TrialState.COMPLETE])
    }


def objective(space, table):
    def evaluate(trial):
        for name, distribution in distributions(space).items():
            if isinstance(distribution, IntDistribution):
                trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step)
            else:
                trial.suggest_categorical(name, distribution.choices)
        row = config_of_trial(
            space,
            optuna.trial.create_trial(
                params=trial.params, distributions=trial.distributions, values=[0, 0]
            ),
        ).indices
        metrics = table.metrics(row[None])
        return 100 * metrics["accuracy"][0], metrics["latency"][0]

    return evaluate
