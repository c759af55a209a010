"""Whole generations, as the outer loop asks for them."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from search.evolution import (
    config_of_trial,
    make_trial,
)
from search.objectives import Constraint, Problem
from search.pareto import hypervolume
from spaces.population import hashes, sample
from tests.search.sampler_table import (
    BATCH,
    Table,
    make_sampler,
    record,
    run_loop,
    subnet_bytes,
    trial_set,
)


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
        problem.objectives,
        (Constraint.model_validate({"name": "size", "max": limit, "unit": "kB"}),),
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
        (Constraint.model_validate({"name": "size", "max": smallest / 2, "unit": "kB"}),),
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
