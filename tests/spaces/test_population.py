from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces import get_space
from spaces.population import canonicalize, crossover, hashes, mutate, one_hot, sample, unique

SPACE = get_space("mobilenetv3_digits")
SEEDS = st.integers(0, 2**32 - 1)


def _is_canonical(population):
    return (
        population.dtype == np.int16
        and np.all(population >= 0)
        and np.all(population < SPACE.cardinalities)
        and np.all(population[~SPACE.active(population)] == 0)
    )


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.floats(0, 1))
def test_operators_yield_canonical_rows(seed, rate):
    rng = np.random.default_rng(seed)
    first, second = sample(SPACE, 20, rng), sample(SPACE, 20, rng)
    assert _is_canonical(first)
    assert _is_canonical(mutate(SPACE, first, rate, rng))
    assert _is_canonical(crossover(SPACE, first, second, rng))
    assert _is_canonical(canonicalize(SPACE, rng.integers(-99, 99, first.shape)))


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_a_child_has_only_genes_of_its_parents(seed):
    rng = np.random.default_rng(seed)
    first, second = sample(SPACE, 20, rng), sample(SPACE, 20, rng)
    child = crossover(SPACE, first, second, rng)
    from_first = (child == first) & SPACE.active(first)
    from_second = (child == second) & SPACE.active(second)
    assert np.all(from_first | from_second | ~SPACE.active(child))
    same = crossover(SPACE, first, first, rng)
    assert np.array_equal(same, first)


def test_mutation_rate_is_the_share_of_changed_genes():
    rng = np.random.default_rng(0)
    rows = np.tile(SPACE.max_config().indices, (4000, 1))
    changed = mutate(SPACE, rows, 0.1, rng) != rows
    resolution = changed[:, SPACE.position("resolution")].mean()
    assert abs(resolution - 0.1) < 0.02
    assert np.array_equal(mutate(SPACE, rows, 0.0, rng), rows)
    certain = mutate(SPACE, rows, 1.0, rng)[:, SPACE.position("head.width")]
    assert not np.any(certain == SPACE.max_config().indices[SPACE.position("head.width")])


def test_a_gene_with_one_choice_never_changes():
    space = SPACE.restrict(choices={"resolution": [24]})
    rows = mutate(
        space, sample(space, 100, np.random.default_rng(0)), 1.0, np.random.default_rng(1)
    )
    assert np.all(rows[:, space.position("resolution")] == 0)


def test_woken_genes_are_drawn_afresh():
    rng = np.random.default_rng(0)
    shallow = SPACE.config(SPACE.max_config().to_json() | {"stage1.depth": 1})
    rows = mutate(SPACE, np.tile(shallow.indices, (3000, 1)), 0.3, rng)
    deep = rows[:, SPACE.position("stage1.depth")] > 0
    kernels = rows[deep, SPACE.position("stage1.block1.kernel")]
    assert 0.3 < kernels.mean() < 0.7


def test_one_hot_marks_active_genes_only():
    rows = sample(SPACE, 100, np.random.default_rng(0))
    encoded = one_hot(SPACE, rows)
    assert encoded.shape == (100, SPACE.cardinalities.sum())
    assert np.array_equal(encoded.sum(axis=1), SPACE.active(rows).sum(axis=1))
    assert len(np.unique(encoded, axis=0)) == len(unique(SPACE, rows))


def test_hash_is_of_the_subnet_and_unique_keeps_the_first():
    rows = sample(SPACE, 5000, np.random.default_rng(0))
    keys = [SPACE.from_indices(row).key for row in rows]
    assert len(set(keys)) == len(set(hashes(SPACE, rows)))
    doubled = np.concatenate([rows[:10], rows[:10]])
    dirty = doubled.copy()
    dirty[10:][~SPACE.active(dirty[10:])] = 1
    assert np.array_equal(unique(SPACE, dirty), rows[:10])


def test_same_generator_same_population():
    first = sample(SPACE, 10, np.random.default_rng(5))
    assert np.array_equal(first, sample(SPACE, 10, np.random.default_rng(5)))
