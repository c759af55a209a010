from __future__ import annotations

import numpy as np
import pytest

from spaces.cost import bit_operations, cost
from spaces.population import sample
from supernet.errors import SupernetConfigError
from supernet.samplers.columns import UNORDERED, columns
from supernet.samplers.complexity_measure import Measure, complexity
from supernet.samplers.levels import build_levels, spread_levels


def test_complexity_is_that_of_each_config(space):
    rows = sample(space, 40, np.random.default_rng(0))
    specs = [space.layer_specs(space.from_indices(row)) for row in rows]
    macs = complexity(space, rows, Measure.MACS)
    np.testing.assert_array_equal(macs, [cost(s).macs for s in specs])
    bits = complexity(space, rows, Measure.BIT_OPERATIONS)
    np.testing.assert_array_equal(bits, [sum(map(bit_operations, s)) for s in specs])


@pytest.mark.parametrize("measure", list(Measure))
def test_configs_of_a_level_have_its_complexity_and_dominate_its_smallest(space, measure):
    wanted = spread_levels(space, measure, 6)
    levels = build_levels(space, measure, wanted, 0.1, 3, 3000, seed=0, exact=False)
    ordered = ~columns(space, UNORDERED)
    lower = np.array([level.complexity for level in levels])
    assert len(levels) >= 5
    assert (np.diff(lower) > 0).all()
    for level in levels:
        found = complexity(space, level.rows, measure)
        assert ((found >= level.complexity) & (found <= 1.1 * level.complexity)).all()
        assert (level.rows >= level.smallest)[:, ordered].all()
    smallest = complexity(space, np.stack([level.smallest for level in levels]), measure)
    assert not levels[0].smallest.any()
    assert len(set(smallest.tolist())) == 3
    # No gap within a step is nearly as large as that of the sandwich.
    assert (lower / smallest).max() < 0.5 * lower[-1] / smallest[0]


def test_levels_spread_from_the_smallest_to_the_largest_by_ratio(space):
    levels = spread_levels(space, Measure.MACS, 5)
    ratios = np.array(levels[1:]) / levels[:-1]
    assert ratios.max() / ratios.min() < 1.0001
    ends = [cost(space.layer_specs(c)).macs for c in (space.min_config(), space.max_config())]
    assert ends[0] < levels[0]
    assert levels[-1] < ends[1]


def test_wanted_levels_stay_where_they_are(space):
    wanted = [cost(space.layer_specs(space.min_config())).macs * 1.0, 1e6]
    levels = build_levels(space, Measure.MACS, wanted, 0.3, 1, 3000, 0, exact=True)
    assert [level.complexity for level in levels] == wanted


def test_a_level_without_configs_names_the_range(space):
    with pytest.raises(SupernetConfigError, match=r"candidates have \d+ to \d+"):
        build_levels(space, Measure.MACS, [1.0, 2.0], 0.1, 1, 500, 0, exact=True)


def test_a_space_of_one_complexity_has_no_levels(plain):
    one = plain(resolution=(8,), width=(16,), depth=(2,), expansion=(1,))
    with pytest.raises(SupernetConfigError, match="all configs of plain have"):
        spread_levels(one, Measure.MACS, 3)
