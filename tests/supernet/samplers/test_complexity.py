from __future__ import annotations

import numpy as np
import pytest

from supernet.samplers import ComplexityConfig, ComplexitySampler, Role
from supernet.samplers.columns import UNORDERED, columns
from supernet.samplers.complexity_measure import Measure, complexity


@pytest.fixture(scope="module")
def sampler(space):
    return ComplexitySampler(space, 3, 0, ComplexityConfig(levels=6, candidates=4000))


def test_the_level_walks_lazily_and_visits_all_alike(sampler):
    levels = np.array([sampler.level(step) for step in range(10_000)])
    assert np.abs(np.diff(levels)).max() == 1
    shares = np.bincount(levels, minlength=6) / len(levels)
    assert ((shares >= 0.5 / 6) & (shares <= 2 / 6)).all()


def test_configs_of_a_step_are_of_its_level_and_dominate_its_smallest(sampler, space):
    ordered = ~columns(space, UNORDERED)
    for step in range(300):
        *random, smallest = sampler.sample(step)
        level = sampler.levels[sampler.level(step)]
        assert [d.role for d in (*random, smallest)] == [Role.RANDOM] * 3 + [Role.MIN]
        rows = np.stack([draw.config.indices for draw in random])
        macs = complexity(space, rows, Measure.MACS)
        assert ((macs >= level.complexity) & (macs <= 1.1 * level.complexity)).all()
        assert (rows >= smallest.config.indices)[:, ordered].all()
        assert space.max_config() not in {draw.config for draw in random}


def test_bits_stay_free_unless_complexity_counts_them(sampler, space):
    names = [n for n in space.names if n.endswith("w_bits")][:1]
    seen = {d.config[names[0]] for step in range(40) for d in sampler.sample(step)[:-1]}
    assert seen == {2, 4, 8}
    config = ComplexityConfig(levels=4, candidates=4000, measure=Measure.BIT_OPERATIONS)
    counting = ComplexitySampler(space, 3, 0, config)
    for step in range(100):
        rows = np.stack([d.config.indices for d in counting.sample(step)[:-1]])
        found = complexity(space, rows, Measure.BIT_OPERATIONS)
        lower = counting.levels[counting.level(step)].complexity
        assert ((found >= lower) & (found <= 1.1 * lower)).all()
