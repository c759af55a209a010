"""Variation of whole populations: selection, children without duplicates, fresh random configs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spaces.population import canonicalize, crossover, hashes, mutate, sample, unique
from spaces.space import Population, SearchSpace

IntArray = NDArray[np.int64]
Hashes = NDArray[np.uint64]

# Rounds of variation that may pass before a nearly exhausted neighbourhood is given up.
_ROUNDS = 12
# Share of children with two parents; the others have one.
_CROSSOVER = 0.9
# log10 of the largest space whose configs are listed when random draws find no new ones.
_ENUMERABLE = 5.0


def tournament(position: IntArray, count: int, rng: np.random.Generator) -> IntArray:
    """Winners of random tournaments of two, with replacement.

    Args:
        position: (n,) place of every row in the order from best (0) to worst.
        count: Number of tournaments.
        rng: Randomness.

    Returns:
        Row numbers (count,).
    """
    contestants = rng.integers(0, len(position), (count, 2))
    best = np.argmin(position[contestants], axis=1)
    return contestants[np.arange(count), best].astype(np.int64)


def novel(space: SearchSpace, population: Population, seen: Hashes) -> Population:
    """The canonical rows, each once, whose subnets are not among `seen` (uint64 hashes)."""
    rows = unique(space, population)
    return rows[~np.isin(hashes(space, rows), seen)]


def novel_samples(
    space: SearchSpace, count: int, seen: Hashes, rng: np.random.Generator
) -> Population:
    """Up to `count` different random configs that are not among `seen`.

    Fewer come back only when a small space has no more; then all that remain do.
    """
    found = np.empty((0, len(space.names)), np.int16)
    for _ in range(_ROUNDS):
        drawn = sample(space, max(16, count - len(found)), rng)
        found = novel(space, np.concatenate([found, drawn]), seen)
        if len(found) >= count:
            return found[:count]
    if space.log10_size <= _ENUMERABLE:
        radix = np.cumprod([1, *space.cardinalities[:-1]])
        codes = rng.permutation(int(np.prod(space.cardinalities)))
        grid = (codes[:, None] // radix % space.cardinalities).astype(np.int16)
        found = novel(space, np.concatenate([found, canonicalize(space, grid)]), seen)
    return found[:count]


def offspring(
    space: SearchSpace,
    parents: Population,
    position: IntArray,
    count: int,
    seen: Hashes,
    rng: np.random.Generator,
) -> Population:
    """Children by tournament, uniform crossover and mutation, none equal to another or to `seen`.

    Duplicates are replaced by further children, then by random configs, so that a converged
    population does not spend its generation on copies.

    Args:
        space: The space.
        parents: int16 (n, d).
        position: (n,) place of every parent from best to worst.
        count: Number of children.
        seen: Hashes of subnets that must not come back, for example of the parents.
        rng: Randomness.

    Returns:
        int16 (count, d); fewer rows only when a small space has no more.
    """
    # One gene a config on average.
    rate = 1.0 / parents.shape[1]
    children = np.empty((0, parents.shape[1]), np.int16)
    for _ in range(_ROUNDS):
        wanted = count - len(children)
        first = parents[tournament(position, wanted, rng)]
        second = parents[tournament(position, wanted, rng)]
        crossed = np.where(
            rng.random((wanted, 1)) < _CROSSOVER,
            crossover(space, first, second, rng),
            first,
        ).astype(np.int16)
        born = mutate(space, crossed, rate, rng)
        children = novel(space, np.concatenate([children, born]), seen)
        if len(children) >= count:
            return children
    known = np.concatenate([seen, hashes(space, children)])
    return np.concatenate([children, novel_samples(space, count - len(children), known, rng)])
