from __future__ import annotations

import numpy as np

from search.evolution import novel, novel_samples, offspring, tournament
from spaces.population import canonicalize, hashes, sample


def test_tournaments_prefer_the_better():
    rng = np.random.default_rng(0)
    winners = tournament(np.arange(10)[::-1], 20_000, rng)
    counts = np.bincount(winners, minlength=10) / 20_000
    # P(best of two draws with replacement is the k-th worst) = (2k + 1) / 100.
    assert np.allclose(counts, (2 * np.arange(10) + 1) / 100, atol=0.01)


def test_children_are_canonical_new_and_different(space):
    rng = np.random.default_rng(0)
    parents = sample(space, 30, rng)
    children = offspring(space, parents, np.arange(30), 200, hashes(space, parents), rng)
    assert children.shape == (200, len(space.names))
    assert np.array_equal(children, canonicalize(space, children))
    codes = hashes(space, children)
    assert len(np.unique(codes)) == 200
    assert not np.isin(codes, hashes(space, parents)).any()


def test_children_of_one_config_are_near_it(space):
    parent = space.max_config().indices[None]
    rng = np.random.default_rng(0)
    children = offspring(space, parent, np.zeros(1, int), 50, hashes(space, parent), rng)
    assert len(children) == 50
    # A depth mutation blanks a whole block, so compare the median.
    assert np.median((children != parent).sum(axis=1)) <= 3


def test_a_generation_repeats_with_its_generator(space):
    parents = sample(space, 10, np.random.default_rng(0))
    seen = hashes(space, parents)
    twice = [
        offspring(space, parents, np.arange(10), 20, seen, np.random.default_rng(3))
        for _ in range(2)
    ]
    assert np.array_equal(*twice)


def test_a_small_space_is_used_up_and_then_ends(small, all_small):
    rng = np.random.default_rng(0)
    seen = hashes(small, all_small[5:])
    rest = novel_samples(small, 100, seen, rng)
    assert sorted(hashes(small, rest)) == sorted(hashes(small, all_small[:5]))
    everything = hashes(small, all_small)
    assert len(novel_samples(small, 3, everything, rng)) == 0
    assert len(offspring(small, all_small[:8], np.arange(8), 4, everything, rng)) == 0
    assert len(novel(small, all_small, everything)) == 0
