from __future__ import annotations

import numpy as np
import pytest

from search.evolution.acquisition import Candidates, select_batch
from search.pareto import hypervolume


def candidates(mean, std=0.0, feasibility=None, violation=None, population=None):
    mean = np.asarray(mean, float)
    n = len(mean)
    rows = np.random.default_rng(0).integers(0, 9, (n, 20)) if population is None else population
    return Candidates(
        np.asarray(rows, np.int16),
        mean,
        np.broadcast_to(np.asarray(std, float), mean.shape).copy(),
        np.ones(n) if feasibility is None else np.asarray(feasibility, float),
        np.zeros(n) if violation is None else np.asarray(violation, float),
    )


@pytest.mark.parametrize("width", [1, 2, 3])
def test_without_uncertainty_it_is_greedy_hypervolume(width):
    rng = np.random.default_rng(width)
    verified, mean = rng.random((8, width)), rng.random((60, width)) * 0.9
    chosen = select_batch(candidates(mean), verified, 5, np.random.default_rng(0))
    low, high = verified.min(axis=0), verified.max(axis=0)
    reference = low + 1.1 * (high - low)
    archive = verified
    for pick in chosen:
        volumes = [hypervolume(np.vstack([archive, row]), reference) for row in mean]
        gain = volumes[pick] - hypervolume(archive, reference)
        if gain > 1e-9:
            assert volumes[pick] == pytest.approx(max(volumes))
        archive = np.vstack([archive, mean[pick]])
    assert len(set(chosen.tolist())) == 5


def test_uncertainty_is_worth_something():
    verified = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    mean = [[0.52, 0.52], [0.52, 0.52]]
    chosen = select_batch(
        candidates(mean, std=[[0.0, 0.0], [0.1, 0.1]]), verified, 1, np.random.default_rng(0)
    )
    assert chosen.tolist() == [1]


def test_copies_give_way_to_different_configs():
    verified = np.array([[0.0, 1.0], [1.0, 0.0]])
    rows = np.zeros((3, 20), int)
    rows[1, 0] = 1
    rows[2] = 5
    mean = [[0.3, 0.3], [0.3, 0.3], [0.31, 0.31]]
    chosen = select_batch(
        candidates(mean, std=0.1, population=rows), verified, 2, np.random.default_rng(0)
    )
    assert chosen[0] in (0, 1)
    assert chosen[1] == 2


def test_improbable_feasibility_loses():
    verified = np.array([[0.0, 1.0], [1.0, 0.0]])
    found = select_batch(
        candidates([[0.2, 0.2], [0.4, 0.4]], feasibility=[0.05, 1.0]),
        verified,
        1,
        np.random.default_rng(0),
    )
    assert found.tolist() == [1]


def test_when_nothing_can_be_feasible_the_closest_are_taken():
    empty = np.empty((0, 2))
    found = select_batch(
        candidates(np.ones((4, 2)), feasibility=np.zeros(4), violation=[3, 1, 2, 4]),
        empty,
        3,
        np.random.default_rng(0),
    )
    assert found.tolist() == [1, 2, 0]


def test_asking_for_more_than_there_is():
    verified = np.array([[0.0, 1.0], [1.0, 0.0]])
    found = select_batch(candidates([[0.1, 0.1], [2, 2]]), verified, 5, np.random.default_rng(0))
    assert found.tolist() == [0, 1]
    none = candidates(np.empty((0, 2)), population=np.empty((0, 20)))
    assert select_batch(none, verified, 5, np.random.default_rng(0)).tolist() == []
