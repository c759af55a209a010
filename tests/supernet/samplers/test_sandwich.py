from __future__ import annotations

import pytest

from supernet.errors import CheckpointError
from supernet.samplers import Role, SandwichSampler


def test_a_step_is_the_largest_some_random_and_the_smallest(tiny_space):
    sampler = SandwichSampler(tiny_space, 3, seed=4)
    largest, smallest = tiny_space.max_config(), tiny_space.min_config()
    resolutions = set()
    for step in range(20):
        draws = sampler.sample(step)
        assert [d.role for d in draws] == [
            Role.MAX,
            Role.RANDOM,
            Role.RANDOM,
            Role.RANDOM,
            Role.MIN,
        ]
        assert len({d.config["resolution"] for d in draws}) == 1
        resolutions.add(draws[0].config["resolution"])
        at = {"resolution": draws[0].config["resolution"]}
        assert draws[0].config == tiny_space.config({**largest, **at})
        assert draws[-1].config == tiny_space.config({**smallest, **at})
    assert resolutions == {8, 12}


def test_draws_depend_on_seed_and_step_alone(tiny_space):
    def keys(sampler, steps):
        return {step: [d.config.key for d in sampler.sample(step)] for step in steps}

    forward = keys(SandwichSampler(tiny_space, 2, seed=1), range(10))
    backward = keys(SandwichSampler(tiny_space, 2, seed=1), reversed(range(10)))
    assert forward == backward
    assert len({tuple(k) for k in forward.values()}) == 10
    assert keys(SandwichSampler(tiny_space, 2, seed=2), range(10)) != forward


def test_random_precisions_are_drawn_per_layer(tiny_space):
    sampler = SandwichSampler(tiny_space, 1, seed=0)
    seen = [sampler.sample(step)[1].config for step in range(60)]
    for name in ("head.w_bits", "stage1.block0.expand.w_bits"):
        share = sum(c[name] == 8 for c in seen) / len(seen)
        assert 0.25 < share < 0.75
    assert any(c["head.w_bits"] != c["classifier.w_bits"] for c in seen)


def test_state_is_checked(tiny_space):
    sampler = SandwichSampler(tiny_space, 2, seed=1)
    sampler.load_state(sampler.state())
    with pytest.raises(CheckpointError):
        sampler.load_state(SandwichSampler(tiny_space, 2, seed=2).state())
