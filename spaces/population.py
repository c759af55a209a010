"""Operators on populations: int16 arrays (n, d) of choice indices, a config per row.

Every operator works on the whole array; none loops over rows. All randomness comes from the
generator that is passed in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spaces.space import Population, SearchSpace


def sample(space: SearchSpace, count: int, rng: np.random.Generator) -> Population:
    """`count` canonical rows, each gene uniform over its choices."""
    drawn = rng.integers(0, space.cardinalities, (count, len(space.names)), dtype=np.int64)
    return canonicalize(space, drawn.astype(np.int16))


def mutate(
    space: SearchSpace, population: Population, rate: float, rng: np.random.Generator
) -> Population:
    """Canonical copies in which each gene, with probability `rate`, takes another choice.

    A gene with a single choice stays. Genes that a mutated depth wakes up are drawn afresh, since
    a canonical row has forgotten them.
    """
    cards = space.cardinalities
    flip = (rng.random(population.shape) < rate) & (cards > 1)
    step = rng.integers(1, np.maximum(cards, 2), population.shape)
    moved = np.where(flip, (population + step) % cards, population).astype(np.int16)
    woken = space.active(moved) & ~space.active(population)
    fresh = rng.integers(0, cards, population.shape)
    return canonicalize(space, np.where(woken, fresh, moved).astype(np.int16))


def crossover(
    space: SearchSpace, first: Population, second: Population, rng: np.random.Generator
) -> Population:
    """Canonical children (n, d): uniform crossover, each gene from either parent.

    A gene that only one parent has active comes from that parent.
    """
    pick = rng.random(first.shape) < 0.5
    in_first, in_second = space.active(first), space.active(second)
    pick = np.where(in_first == in_second, pick, in_first)
    return canonicalize(space, np.where(pick, first, second))


def canonicalize(space: SearchSpace, population: Population) -> Population:
    """Valid, canonical rows: indices clipped to their range, inactive genes set to 0."""
    clipped = np.clip(population, 0, space.cardinalities - 1).astype(np.int16)
    return np.where(space.active(clipped), clipped, 0).astype(np.int16)


def one_hot(space: SearchSpace, population: Population) -> NDArray[np.float32]:
    """Encodings float32 (n, sum of cardinalities); all zeros for inactive genes."""
    offsets = np.concatenate([[0], np.cumsum(space.cardinalities)[:-1]])
    encoded = np.zeros((len(population), int(space.cardinalities.sum())), np.float32)
    rows, columns = np.nonzero(space.active(population))
    encoded[rows, offsets[columns] + population[rows, columns]] = 1.0
    return encoded


def hashes(space: SearchSpace, population: Population) -> NDArray[np.uint64]:
    """A 64-bit hash of each row's subnet, uint64 (n,); rows of one subnet hash alike."""
    canonical = canonicalize(space, population)
    odd = np.random.default_rng(0x6E65).integers(
        1, 2**63, (len(space.names), int(space.cardinalities.max())), dtype=np.uint64
    )
    # Zobrist hashing: a random word per (gene, choice), mixed by a wrapping sum.
    words = odd[np.arange(len(space.names)), canonical] * np.uint64(0x9E3779B97F4A7C15)
    mixed: NDArray[np.uint64] = np.add.reduce(words, axis=1, dtype=np.uint64)
    return mixed


def unique(space: SearchSpace, population: Population) -> Population:
    """The canonical rows without repetition, in the order of their first occurrence."""
    canonical = canonicalize(space, population)
    _, first = np.unique(hashes(space, canonical), return_index=True)
    return canonical[np.sort(first)]
