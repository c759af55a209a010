from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import ValidationError

from supernet import SupernetConfig
from supernet.errors import CheckpointError
from supernet.samplers import BIT_SAMPLERS, SAMPLERS, Role
from supernet.schedule import Horizon

HORIZON = Horizon(first_step=4, steps=40, steps_per_epoch=8)
SETTINGS = {
    "complexity": {"levels": 3, "candidates": 2000},
    "performance": {"levels": 3, "candidates": 2000, "capacity": 4},
}
PAIRS = [
    (name, bits)
    for name in SAMPLERS.names()
    for bits in BIT_SAMPLERS.names()
    if name != "performance" or bits == "uniform"
]


def build(space, name, bits="uniform", seed=3):
    settings = {"name": name, "bits": bits, **SETTINGS.get(name, {})}
    config = SupernetConfig.model_validate({"sampler": settings}).sampler
    sampler = SAMPLERS.get(name)(space, 3, seed, config, HORIZON)
    if sampler.trace_probes(0):
        sampler.set_traces(0, {f"block{j}.conv": float(j) for j in range(4)})
    return sampler


def keys(sampler, steps):
    return {step: [(d.config.key, d.role) for d in sampler.sample(step)] for step in steps}


@pytest.mark.parametrize(("name", "bits"), PAIRS)
def test_draws_depend_on_seed_and_step_alone(space, name, bits):
    """A sampler that starts anew, and one that draws the steps in another order, draw alike."""
    steps = range(4, 16)
    forward = keys(build(space, name, bits), steps)
    assert keys(build(space, name, bits), reversed(steps)) == forward
    assert keys(build(space, name, bits, seed=4), steps) != forward
    assert len({str(draws) for draws in forward.values()}) > 5


@pytest.mark.parametrize(("name", "bits"), PAIRS)
def test_draws_lie_in_the_space_at_one_resolution(space, name, bits):
    sampler = build(space, name, bits)
    always = SAMPLERS.get(name).roles(sampler.config)
    resolutions, symmetries = set(), set()
    for step in range(4, 34):
        draws = sampler.sample(step)
        assert all(space.contains(draw.config) for draw in draws)
        assert len({draw.config["resolution"] for draw in draws}) == 1
        assert always <= {draw.role for draw in draws}
        resolutions.add(draws[0].config["resolution"])
        symmetries |= {(draw.role, draw.config["weight.symmetry"]) for draw in draws}
        bits_columns = [i for i, n in enumerate(space.names) if n.endswith("_bits")]
        for draw in draws:
            if draw.role is Role.MIN and name != "nested":
                assert not draw.config.indices[bits_columns].any()
    assert resolutions == {8, 12}
    # Symmetry has no order: every role meets both.
    assert len(symmetries) == 2 * len({role for role, _ in symmetries})


@pytest.mark.parametrize(("name", "bits"), PAIRS)
def test_state_is_json_that_another_sampler_refuses(space, name, bits):
    sampler = build(space, name, bits)
    state = json.loads(json.dumps(sampler.state()))
    again = SAMPLERS.get(name)(space, 3, 3, sampler.config, HORIZON)
    again.load_state(state)
    assert again.state() == sampler.state()
    assert not again.trace_probes(0)
    with pytest.raises(CheckpointError):
        build(space, name, bits, seed=4).load_state(state)


def test_options_are_a_name_or_a_mapping():
    short = SupernetConfig.model_validate({"sampler": "nested"})
    long = SupernetConfig.model_validate({"sampler": {"name": "nested", "bits": "triangle"}})
    assert short.sampler == SupernetConfig.model_validate({"sampler": {"name": "nested"}}).sampler
    assert long.sampler.bits.wave == 400
    again = SupernetConfig.model_validate_json(long.model_dump_json())
    assert again == long


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("sandwitch", "Did you mean 'sandwich'"),
        ({"levels": 3}, "needs a name"),
        ({"name": "nested", "subnet": 3}, "Did you mean 'subnets'"),
        ({"name": "nested", "subnets": 1}, "subnets"),
        ({"name": "complexity", "levels": [3.0, 2.0]}, "ascending"),
        ({"name": "nested", "bits": "triangl"}, "Did you mean 'triangle'"),
        (7, "sampler"),
    ],
)
def test_wrong_options_name_what_is_allowed(options, message):
    with pytest.raises(ValidationError, match=message):
        SupernetConfig.model_validate({"sampler": options})


def test_bits_of_an_own_sampler_do_not_change_the_architectures(space):
    """Samplers of different dimensions compose: each draws as it would without the other."""
    plain, composed = build(space, "complexity"), build(space, "complexity", "triangle")
    others = [i for i, n in enumerate(space.names) if not n.endswith("_bits")]
    for step in range(10):
        rows = [np.stack([d.config.indices for d in s.sample(step)]) for s in (plain, composed)]
        np.testing.assert_array_equal(rows[0][:, others], rows[1][:, others])
