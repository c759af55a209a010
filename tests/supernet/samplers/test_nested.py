from __future__ import annotations

import numpy as np

from supernet.evaluate import evaluate
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


def members(space, count):
    """The chain from the smallest to the largest."""
    sampler = NestedSampler(space, 1, 0, NestedConfig(subnets=count, all_in_step=True))
    return [draw.config for draw in sampler.sample(0)][::-1]


def test_training_all_members_makes_each_better_than_a_slice_of_the_largest(
    fine_tune, plainly_trained, small_float_space, digits
):
    """MatFormer: loss falls with size; slices of an ordinarily trained net are far worse."""
    trained = fine_tune(sampler={"name": "nested", "subnets": 3, "all_in_step": True})
    chain = members(small_float_space, 3)
    losses = [evaluate(trained, config, digits).loss for config in chain]
    sliced = [evaluate(plainly_trained, config, digits).loss for config in chain]
    assert losses[0] > losses[1] > losses[2]
    assert sliced[0] > 2 * losses[0]
    assert sliced[1] > losses[1]


def test_training_random_members_sorts_them(fine_tune, plainly_trained, small_float_space, digits):
    """SortedNet: accuracy does not fall with size, and each prefix beats the same prefix of an
    ordinarily trained net."""
    trained = fine_tune(
        sampler={"name": "nested", "subnets": 3},
        objective="task",
        update={"name": "accumulate", "reduction": "mean"},
    )
    chain = members(small_float_space, 3)
    found = [evaluate(trained, config, digits) for config in chain]
    sliced = [evaluate(plainly_trained, config, digits) for config in chain[:-1]]
    losses = [one.loss for one in found]
    assert losses == sorted(losses, reverse=True)
    for one, other in zip(found, sliced, strict=False):
        assert one.loss < other.loss
