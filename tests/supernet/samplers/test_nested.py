from __future__ import annotations

import numpy as np

from supernet.samplers import NestedConfig, NestedSampler, Role
from supernet.samplers.columns import PRECISION, columns


def test_all_members_are_prefixes_of_one_another(space):
    sampler = NestedSampler(space, 2, 0, NestedConfig(subnets=3, all_in_step=True))
    free = columns(space, PRECISION)
    for step in range(20):
        draws = sampler.sample(step)
        assert [d.role for d in draws] == [Role.MAX, Role.RANDOM, Role.MIN]
        rows = np.stack([d.config.indices for d in draws])[:, ~free]
        assert (np.diff(rows, axis=0) <= 0).all()
        assert draws[0].config["width"] == 48
        assert draws[1].config["width"] == 32
        assert draws[-1].config["depth"] == 1


def test_random_members_are_drawn_uniformly_and_larger_ones_first(space):
    sampler = NestedSampler(space, 3, 0, NestedConfig(subnets=3))
    widths = np.array([[d.config["width"] for d in sampler.sample(s)] for s in range(500)])
    assert (np.diff(widths, axis=1) <= 0).all()
    shares = [(widths == w).mean() for w in (16, 32, 48)]
    np.testing.assert_allclose(shares, 1 / 3, atol=0.05)
    roles = {d.config["width"]: d.role for s in range(50) for d in sampler.sample(s)}
    assert roles == {16: Role.MIN, 32: Role.RANDOM, 48: Role.MAX}
