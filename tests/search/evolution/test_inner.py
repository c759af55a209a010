from __future__ import annotations

import time

import numpy as np
import pytest

from search.evolution import EvolutionSettings, Scores, evolve
from search.pareto import hypervolume, non_dominated
from spaces.population import hashes, sample


def test_finds_the_front_of_an_enumerated_space(small, all_small, tabular):
    score = tabular(small, 0)
    exact = score(all_small).objectives
    reference = exact.max(axis=0) + 0.01
    settings = EvolutionSettings(population=60, generations=12)
    found = evolve(small, score, settings, np.random.default_rng(0))
    assert len(np.unique(hashes(small, found.population))) == 60
    front = hypervolume(exact[non_dominated(exact)], reference)
    assert hypervolume(found.objectives, reference) > 0.995 * front


@pytest.mark.parametrize("seed", range(3))
def test_beats_random_search_at_equal_evaluations(space, tabular, seed):
    score = tabular(space, seed)
    settings = EvolutionSettings(population=50, generations=39)
    found = evolve(space, score, settings, np.random.default_rng(seed))
    random = score(sample(space, 2000, np.random.default_rng(seed))).objectives
    reference = np.maximum(random.max(axis=0), found.objectives.max(axis=0))
    assert hypervolume(found.objectives, reference) > 1.3 * hypervolume(random, reference)


def test_scores_belong_to_their_rows_and_the_run_repeats(space, tabular):
    score = tabular(space, 1)
    settings = EvolutionSettings(population=20, generations=5)
    first = evolve(space, score, settings, np.random.default_rng(2))
    again = evolve(space, score, settings, np.random.default_rng(2))
    assert np.array_equal(first.population, again.population)
    assert np.array_equal(first.objectives, score(first.population).objectives)


def test_constraints_are_met_when_they_can_be(space, tabular):
    score = tabular(space, 0)

    def limited(bound):
        def with_violation(population):
            plain = score(population).objectives
            return Scores(plain, np.maximum(plain[:, 1] - bound, 0.0))

        return with_violation

    settings = EvolutionSettings(population=30, generations=30)
    cheapest = float(score(space.min_config().indices[None]).objectives[0, 1])
    met = evolve(space, limited(cheapest + 0.2), settings, np.random.default_rng(0))
    assert (met.violation == 0).all()
    # Nothing is cheaper than the smallest config: the closest is kept, and is first.
    unmet = evolve(space, limited(cheapest - 0.1), settings, np.random.default_rng(0))
    assert (unmet.violation > 0).all()
    assert unmet.violation[0] == unmet.violation.min()
    start = limited(cheapest - 0.1)(sample(space, 500, np.random.default_rng(0))).violation
    assert unmet.violation[0] < start.min()


def test_initial_configs_are_kept_when_they_are_good(space, tabular):
    score = tabular(space, 0)
    ends = np.stack([space.max_config().indices, space.min_config().indices])
    found = evolve(
        space, score, EvolutionSettings(20, 3), np.random.default_rng(0), np.repeat(ends, 2, 0)
    )
    codes = hashes(space, found.population)
    assert hashes(space, ends[1:])[0] in codes
    assert len(np.unique(codes)) == 20


def test_one_objective_is_the_case_with_one(space, tabular):
    score = tabular(space, 0)
    found = evolve(
        space,
        lambda p: Scores(score(p).objectives[:, :1]),
        EvolutionSettings(40, 60),
        np.random.default_rng(0),
    )
    random = score(sample(space, 2400, np.random.default_rng(0))).objectives[:, 0].min()
    assert found.objectives[0, 0] == found.objectives[:, 0].min() < random


def test_a_space_smaller_than_the_population(small, all_small, tabular):
    found = evolve(small, tabular(small, 0), EvolutionSettings(10_000, 2), np.random.default_rng(0))
    assert len(found.population) == len(all_small)


def test_wrong_scores_and_settings_are_refused(space):
    with pytest.raises(ValueError, match="10 configs were scored"):
        evolve(
            space,
            lambda p: Scores(np.zeros((3, 2))),
            EvolutionSettings(10, 1),
            np.random.default_rng(0),
        )
    with pytest.raises(ValueError, match="at least 4"):
        EvolutionSettings(population=2)


def test_a_hundred_thousand_candidates_in_tens_of_seconds(space, tabular):
    start = time.process_time()
    evolve(space, tabular(space, 0), EvolutionSettings(256, 390), np.random.default_rng(0))
    assert time.process_time() - start < 40
