from __future__ import annotations

import numpy as np
import pytest

from supernet.data.chance import RowsOfBatch

DRAWS = {
    "uniform": lambda chance, n: chance.uniform(-2.0, 3.0, (2, n)),
    "random": lambda chance, n: chance.random(n),
    "integers": lambda chance, n: chance.integers(0, 9, n),
    "choice": lambda chance, n: chance.choice([-1.0, 1.0], n),
}


@pytest.mark.parametrize("rows", [slice(0, None, 3), slice(2, None, 3), slice(0, None, 1)])
def test_the_numbers_of_a_row_do_not_depend_on_who_has_the_others(rows):
    """One draw after the other, so that each leaves the generator where all of them leave it."""
    whole = np.random.default_rng(0)
    part = RowsOfBatch(np.random.default_rng(0), 10, rows)
    count = len(range(10)[rows])
    for draw in DRAWS.values():
        wanted, got = draw(whole, 10), draw(part, count)
        assert got.shape[-1] == count
        assert np.array_equal(got, wanted[..., rows])
