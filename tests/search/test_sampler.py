from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import TrialState

from predictors import AccuracyPredictor, RidgeLatencyPredictor
from predictors.features import FEATURES, NOMINAL_MS, cost_features, totals
from search.evolution import (
    EvolutionSettings,
    config_of_trial,
    distributions,
    make_trial,
)
from search.objectives import Constraint, Objective, Problem
from search.pareto import hypervolume
from search.sampler import EvolutionSampler
from spaces import Dimension, DimensionKind, get_space
from spaces.population import hashes, sample

optuna.logging.set_verbosity(optuna.logging.ERROR)
BATCH = 6
SMALL = EvolutionSettings(population=48, generations=12)


@pytest.fixture(scope="session")
def space():
    return get_space("mobilenetv3_digits")


@pytest.fixture
def problem():
    return Problem(
        (
            Objective.parse({"name": "accuracy", "unit": "%"}),
            Objective.parse({"name": "latency", "unit": "ms"}),
        )
    )


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
        self.accuracy = AccuracyPredictor(space).fit(history.population, values[:, 0] / 100)
        self.latency = RidgeLatencyPredictor(space).fit(history.population, values[:, 1])

    def predict(self, population):
        size = subnet_bytes(self.space, population)
        return {
            "accuracy": self.accuracy.predict(population),
            "latency": self.latency.predict(population),
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


# -- trials -------------------------------------------------------------------------------------


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
        problem.objectives, (Constraint.parse({"name": "size", "max": 50, "unit": "kB"}),)
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


# -- whole generations --------------------------------------------------------------------------


@pytest.mark.parametrize("surrogate", [False, True])
def test_no_config_is_verified_twice_and_seeds_repeat(space, problem, surrogate):
    table = Table(space, 0)
    studies = []
    for seed in (0, 0, 1):
        study = optuna.create_study(directions=problem.directions)
        run_loop(study, make_sampler(space, problem, seed, surrogate), table, 3)
        studies.append(study)
    params = [[t.params for t in study.trials] for study in studies]
    assert params[0] == params[1] != params[2]
    rows = np.array([list(config_of_trial(space, t).indices) for t in studies[0].trials])
    assert len(rows) == 10 + 2 * BATCH
    assert len(np.unique(hashes(space, rows.astype(np.int16)))) == len(rows)


def test_first_generation_holds_the_ends(space, problem):
    study = optuna.create_study(directions=problem.directions)
    members = make_sampler(space, problem).ask_generation(study, 0, 5)
    keys = [space.from_indices(row).key for row in members]
    assert keys[:2] == [space.max_config().key, space.min_config().key]
    assert len(set(keys)) == 5


@pytest.mark.parametrize("database", [False, True])
@pytest.mark.parametrize("surrogate", [False, True])
def test_an_interrupted_loop_ends_as_an_undisturbed_one(
    space, problem, surrogate, database, tmp_path
):
    table = Table(space, 0)
    undisturbed = optuna.create_study(directions=problem.directions)
    run_loop(undisturbed, make_sampler(space, problem, 7, surrogate), table, 3)

    storage = f"sqlite:///{tmp_path}/study.db" if database else optuna.storages.InMemoryStorage()
    rng = np.random.default_rng(1)
    generation, stops = 0, 0
    while generation < 3:
        # Each turn is a new process: nothing survives but the storage.
        study = optuna.create_study(
            study_name="s", storage=storage, directions=problem.directions, load_if_exists=True
        )
        sampler = make_sampler(space, problem, 7, surrogate)
        members = sampler.ask_generation(study, generation, BATCH if generation else 10)
        missing = sampler.pending(study, generation, members)
        # Evaluations end in any order, and the process dies after some of them.
        ended = rng.permutation(missing)[: rng.integers(1, 6)]
        record(study, sampler, table, generation, members, ended)
        stops += len(ended) < len(missing)
        generation += len(ended) == len(missing)
    assert stops >= 2
    assert trial_set(study, space) == trial_set(undisturbed, space)
    assert len(study.trials) == len(undisturbed.trials)


def test_a_failed_evaluation_is_never_asked_again(space, problem):
    table = Table(space, 0)
    study = optuna.create_study(directions=problem.directions)
    sampler = make_sampler(space, problem)
    members = sampler.ask_generation(study, 0, 8)
    record(study, sampler, table, 0, members, range(1, 8))
    broken = space.from_indices(members[0])
    study.add_trial(make_trial(space, problem, broken, None, sampler.generation_attrs(0, 0)))
    assert sampler.pending(study, 0, members).size == 0
    assert len(sampler.history(study)) == 7
    for generation in range(1, 4):
        members = sampler.ask_generation(study, generation, 20)
        assert not np.isin(hashes(space, members), hashes(space, broken.indices[None])).any()


def test_a_small_space_ends_with_fewer_members(space, problem):
    first = {name: d.choices[:1] for name, d in zip(space.names, space.dimensions, strict=True)}
    tiny = space.restrict(choices={**first, "resolution": (20, 24, 28), "head.width": (96, 128)})
    table, study = Table(tiny, 0), optuna.create_study(directions=problem.directions)
    sampler = make_sampler(tiny, problem)
    counts = []
    for generation in range(3):
        members = sampler.ask_generation(study, generation, 4)
        counts.append(len(members))
        record(study, sampler, table, generation, members, range(len(members)))
    assert counts == [4, 2, 0]


def test_constraints_steer_the_search(space, problem):
    table = Table(space, 0)
    sizes = subnet_bytes(space, sample(space, 500, np.random.default_rng(0)))
    limit = float(np.quantile(sizes, 0.02)) / 1000
    bounded = Problem(
        problem.objectives, (Constraint.parse({"name": "size", "max": limit, "unit": "kB"}),)
    )
    study = optuna.create_study(directions=bounded.directions)
    run_loop(study, make_sampler(space, bounded, 0, surrogate=True), table, 4)
    later = [t for t in study.trials if t.system_attrs["EvolutionSampler:generation"] > 0]
    met = [max(t.constraints.values()) == 0 for t in later]
    assert np.mean(met) > 0.8


def test_unmeetable_constraints_lead_to_the_closest(space, problem):
    table = Table(space, 0)
    smallest = subnet_bytes(space, space.min_config().indices[None])[0] / 1000
    bounded = Problem(
        problem.objectives,
        (Constraint.parse({"name": "size", "max": smallest / 2, "unit": "kB"}),),
    )
    study = optuna.create_study(directions=bounded.directions)
    sampler = make_sampler(space, bounded, 0, surrogate=True)
    run_loop(study, sampler, table, 3)
    history = sampler.history(study)
    generations = [t.system_attrs["EvolutionSampler:generation"] for t in history.trials]
    violation = {g: np.median(history.violation[np.equal(generations, g)]) for g in (0, 2)}
    assert violation[2] < violation[0]
    best = sampler.select_parent(study, 3)[0]
    assert sum(best.constraints.values()) == history.violation.min()


@pytest.mark.slow
def test_more_hypervolume_than_random_search_at_equal_evaluations(space, problem):
    """Ten references and five generations of six: forty evaluations each, five seeds."""
    ratios = []
    for seed in range(5):
        table = Table(space, seed)
        random = sample(space, 40, np.random.default_rng(seed))
        random_objectives = problem.minimised(table.metrics(random))
        found = []
        for surrogate in (False, True):
            sampler = make_sampler(space, problem, seed, surrogate)
            study = optuna.create_study(directions=problem.directions)
            run_loop(study, sampler, table, 6)
            found.append(sampler.history(study).objectives)
            assert len(found[-1]) == 40
        reference = np.concatenate([*found, random_objectives]).max(axis=0)
        baseline = hypervolume(random_objectives, reference)
        ratios.append([hypervolume(objectives, reference) / baseline for objectives in found])
    plain, predicted = np.mean(ratios, axis=0)
    assert plain > 1.02
    assert predicted > max(1.1, plain)
    assert (np.array(ratios)[:, 1] > 1).all()


# -- study.optimize -----------------------------------------------------------------------------


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


def test_optimize_serves_generations(space, problem):
    sampler = make_sampler(space, problem)
    study = optuna.create_study(directions=problem.directions, sampler=sampler)
    study.optimize(objective(space, Table(space, 0)), n_trials=3 * BATCH + 2)
    assert [len(sampler.get_population(study, g)) for g in range(4)] == [BATCH] * 3 + [2]
    configs = {config_of_trial(space, t).key for t in study.trials}
    assert len(configs) == len(study.trials)
    members = make_sampler(space, problem).ask_generation(study, 2, BATCH)
    served = [config_of_trial(space, t).key for t in sampler.get_population(study, 2)]
    assert served == [space.from_indices(row).key for row in members]
    parents = sampler.get_parent_population(study, 2)
    assert len(parents) == BATCH
    assert {t.system_attrs["EvolutionSampler:generation"] for t in parents} <= {0, 1}


def test_a_failing_trial_is_tried_twice_then_left(space, problem):
    sampler = make_sampler(space, problem)
    study = optuna.create_study(directions=problem.directions, sampler=sampler)
    evaluate, largest = objective(space, Table(space, 0)), space.max_config()

    def fragile(trial):
        values = evaluate(trial)
        if trial.params["resolution"] == 32 and trial.params == largest.to_json():
            raise RuntimeError("out of memory")
        return values

    study.optimize(fragile, n_trials=BATCH + 2, catch=(RuntimeError,))
    states = [t.state for t in study.trials]
    assert states.count(TrialState.FAIL) == 2
    assert len(sampler.get_population(study, 0)) == BATCH - 1
    assert len(sampler.get_population(study, 1)) == 1


def test_parallel_trials_are_all_different(space, problem):
    sampler = make_sampler(space, problem)
    study = optuna.create_study(directions=problem.directions, sampler=sampler)
    trials = [study.ask(distributions(space)) for _ in range(BATCH + 3)]
    assert len({tuple(t.params.values()) for t in trials}) == BATCH + 3


KILLED = """
    import os, sys
    import optuna
    sys.path[:0] = [{tests!r}]
    import test_sampler as t
    from search.objectives import Objective, Problem

    space = t.get_space("mobilenetv3_digits")
    problem = Problem((
        Objective.parse({{"name": "accuracy", "unit": "%"}}),
        Objective.parse({{"name": "latency", "unit": "ms"}}),
    ))
    study = optuna.create_study(
        study_name="s", storage={storage!r}, directions=problem.directions, load_if_exists=True,
        sampler=t.make_sampler(space, problem, 3),
    )
    evaluate = t.objective(space, t.Table(space, 0))

    def dying(trial):
        values = evaluate(trial)
        if trial.number == 8:
            os._exit(9)
        return values

    study.optimize(dying, n_trials=15)
"""


@pytest.mark.slow
def test_a_killed_optimize_resumes_to_the_same_trials(space, problem, tmp_path, request):
    undisturbed = optuna.create_study(
        directions=problem.directions, sampler=make_sampler(space, problem, 3)
    )
    undisturbed.optimize(objective(space, Table(space, 0)), n_trials=10)

    storage = f"sqlite:///{tmp_path}/study.db"
    script = KILLED.format(tests=str(request.path.parent), storage=storage)
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=request.config.rootpath, check=False
    )
    assert ended.returncode == 9
    study = optuna.load_study(
        study_name="s", storage=storage, sampler=make_sampler(space, problem, 3)
    )
    assert [t.state for t in study.trials][8:] == [TrialState.RUNNING]
    study.optimize(objective(space, Table(space, 0)), n_trials=2)
    complete = study.get_trials(states=[TrialState.COMPLETE])
    assert [t.params for t in complete] == [t.params for t in undisturbed.trials]
    assert [t.values for t in complete] == [t.values for t in undisturbed.trials]
