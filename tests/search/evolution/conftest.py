from __future__ import annotations

import itertools

import numpy as np
import pytest

from search.evolution import Scores
from spaces.population import canonicalize, unique


@pytest.fixture(scope="session")
def small(space):
    """A sub-space small enough to be enumerated."""
    choices = {name: space.dimensions[space.position(name)].choices[:1] for name in space.names}
    for name in ("resolution", "stage1.width", "stage2.width", "stage3.width", "head.width"):
        choices[name] = space.dimensions[space.position(name)].choices
    for name in ("stage1.depth", "stage1.block1.kernel", "stage2.block0.kernel"):
        choices[name] = space.dimensions[space.position(name)].choices
    return space.restrict(choices=choices)


@pytest.fixture(scope="session")
def all_small(small):
    grid = np.array(list(itertools.product(*[range(c) for c in small.cardinalities])), np.int16)
    return unique(small, canonicalize(small, grid))


@pytest.fixture(scope="session")
def tabular():
    """(space, seed) -> score of two conflicting objectives with pairwise interactions."""

    def make(space, seed):
        rng = np.random.default_rng(seed)
        d = len(space.names)
        gain, cost = np.abs(rng.normal(size=(2, d)))
        pairs, weights = rng.integers(0, d, (40, 2)), rng.normal(0, 0.4, 40)
        top = np.maximum(space.cardinalities - 1, 1)

        def score(population):
            steps = population / top
            interaction = (steps[:, pairs[:, 0]] * steps[:, pairs[:, 1]]) @ weights
            return Scores(
                np.stack([-np.tanh((steps @ gain + interaction) / d), steps @ cost / d], axis=1)
            )

        return score

    return make
