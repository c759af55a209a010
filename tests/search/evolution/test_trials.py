from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution

from search.evolution import (
    config_of_trial,
    distributions,
    make_trial,
)
from search.objectives import Constraint, Problem
from spaces import Dimension, DimensionKind
from spaces.population import sample
from tests.search.sampler_table import (
    make_sampler,
)


def test_every_dimension_is_a_readable_parameter(space, problem):
    found = distributions(space)
    assert tuple(found) == space.names
    assert found["resolution"] == IntDistribution(20, 32, step=4)
    assert found["head.w_bits"] == IntDistribution(8, 32, step=24)
    uneven = Dimension("x", DimensionKind.WIDTH, (8, 16, 48))
    from search.evolution.trials import distribution

    assert distribution(uneven) == CategoricalDistribution((8, 16, 48))
    config = space.from_indices(sample(space, 1, np.random.default_rng(0))[0])
    metrics = {"accuracy": 0.9, "latency": 0.5}
    trial = make_trial(space, problem, config, metrics, {"EvolutionSampler:generation": 3})
    assert trial.params == config.to_json()
    assert trial.values == pytest.approx([90.0, 0.5])
    assert config_of_trial(space, trial) == config


def test_optuna_knows_the_constraints(space, problem):
    bounded = Problem(
        problem.objectives, (Constraint.model_validate({"name": "size", "max": 50, "unit": "kB"}),)
    )
    study = optuna.create_study(directions=bounded.directions)
    for size, accuracy in ((40_000, 0.8), (60_000, 0.99)):
        config = space.max_config() if size > 50_000 else space.min_config()
        metrics = {"accuracy": accuracy, "latency": 0.5, "size": size}
        study.add_trial(make_trial(space, bounded, config, metrics, {}))
    assert [t.values[0] for t in study.best_trials] == [80.0]
    assert study.trials[1].constraints == {"size <= 50 kB": pytest.approx(0.2)}
    history = make_sampler(space, bounded).history(study)
    assert sorted(history.violation) == pytest.approx([0.0, 0.2])
