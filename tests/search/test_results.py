from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from compilers.measurement import Measurement
from search.objectives import Constraint, Objective, Problem
from search.results import DeviceResults, Verified, at_bits
from spaces import cost, get_space
from spaces.population import sample
from tests.supernet.tiny_vit import tiny_vit_space

SPACE = get_space("mobilenetv3_digits")
PROBLEM = Problem(
    (Objective(name="accuracy", unit="%"), Objective(name="latency", unit="ms")),
    (Constraint(name="latency", max=0.5, unit="ms"),),
)


def verified(config, accuracy, ms, aa_ratio=1.0):
    measurement = Measurement(ms, ms, ms, 10, 1, "clock", aa_ratio, 0.01, 1)
    return Verified(config, 1, accuracy, 0.1, cost(SPACE.layer_specs(config)), measurement)


def results(*points, problem=PROBLEM):
    rows = sample(SPACE, len(points), np.random.default_rng(0))
    found = [verified(SPACE.from_indices(r), *p) for r, p in zip(rows, points, strict=True)]
    return DeviceResults(SPACE, found, problem, {})


@pytest.mark.parametrize("bits", [8, 32])
def test_twins_do_not_depend_on_a_restriction_of_the_bits(bits):
    restricted = SPACE.restrict(choices={"*.w_bits": [bits]})
    config = restricted.max_config()
    for other in (8, 32):
        twin = at_bits(restricted, config, other)
        assert {v for n, v in twin.to_json().items() if n.endswith("w_bits")} == {other}
        assert twin["resolution"] == config["resolution"]
    assert at_bits(restricted, config, 4) is None


def test_twins_of_float32_layers_have_what_the_device_executes():
    settings = {
        "w_bits": (4, 8, 32),
        "a_bits": (4, 8),
        "granularity": ("per_tensor", "per_channel"),
    }
    space = tiny_vit_space(**settings)
    device = space.restrict(choices={"*.a_bits": [8], "weight.granularity": ["per_channel"]})
    floating = space.max_config()
    twin = at_bits(device, floating, 8)
    assert device.contains(twin)
    assert at_bits(device, twin, 32) == floating
    # What was chosen for a quantised layer stays.
    narrow = space.config(dict(space.min_config()) | {"classifier.w_bits": 32})
    assert device.contains(narrow) is False
    values = at_bits(device, narrow, 8).active()
    inputs = [value for name, value in values.items() if name.endswith("a_bits")]
    assert (values["classifier.a_bits"], inputs.count(4)) == (8, len(inputs) - 1)
    assert values["weight.granularity"] == "per_tensor"


def test_a_member_tells_the_genes_that_count():
    config = SPACE.min_config()
    (member,) = DeviceResults(SPACE, [verified(config, 0.9, 0.1)], PROBLEM, {}).members()
    assert SPACE.config(member.config) == config
    assert "stage2.block0.kernel" in member.config
    assert "stage2.block1.kernel" not in member.config


def test_the_front_is_feasible_and_not_dominated():
    found = results((0.9, 0.1), (0.95, 0.2), (0.94, 0.3), (0.99, 0.9))
    assert [v.measured_ms for v in found.front] == [0.1, 0.2]
    assert all(member.feasible for member in found.members())


def test_when_nothing_is_feasible_the_closest_come():
    found = results(*((0.9, 1.0 + k) for k in range(9)))
    assert not found.feasible
    assert [v.measured_ms for v in found.front] == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_latencies_are_distinct_when_they_differ_by_more_than_the_noise():
    off_the_front = (0.5, 0.4, 1.3)
    found = results(
        (0.9, 0.1, 1.0), (0.92, 0.103, 0.95), (0.95, 0.12, 1.0), (0.96, 0.2, 1.02), off_the_front
    )
    assert found.noise == pytest.approx(0.05)
    assert found.distinct() == 3


def test_latencies_of_sessions_that_became_slower_are_counted():
    found = results((0.9, 0.1), (0.92, 0.2), (0.95, 0.3))
    assert found.throttled == 0
    found.verified = [
        replace(v, measurement=replace(v.measurement, drift=drift))
        for v, drift in zip(found.verified, (1.2, None, 1.01), strict=True)
    ]
    assert found.throttled == 1


def test_bytes_at_equal_bits():
    config = at_bits(SPACE, SPACE.max_config(), 8)
    found = DeviceResults(SPACE, [verified(config, 0.9, 0.1)], PROBLEM, {})
    (member,) = found.members()
    largest = cost(SPACE.layer_specs(SPACE.max_config())).bytes
    assert member.bytes < largest == member.float_bytes
    # The stem is never quantised.
    assert member.precisions["fp32"] == 1
