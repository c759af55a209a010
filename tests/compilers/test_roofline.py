from __future__ import annotations

import json

import pytest

from compilers.roofline import Bandwidth, Roofline

ROOFLINE = Roofline(
    isa="avx2",
    float32_gops=100.0,
    int8_gops=400.0,
    bandwidths=(
        Bandwidth("L1", 32_000, 200.0),
        Bandwidth("L2", 1_000_000, 50.0),
        Bandwidth("memory", None, 10.0),
    ),
)


@pytest.mark.parametrize(
    ("macs", "size", "integer", "limit", "seconds"),
    [
        # 2e6 operations at 1e11 per second; 10 kB at 2e11 bytes per second take 50 ns.
        (1_000_000, 10_000, False, "float32", 20e-6),
        (1_000_000, 10_000, True, "int8", 5e-6),
        (0, 32_000, False, "L1", 160e-9),
        (0, 32_001, False, "L2", 32_001 / 50e9),
        (1_000, 1_000_000, False, "L2", 20e-6),
        (1_000_000, 4_000_000, True, "memory", 400e-6),
    ],
)
def test_a_kernel_is_bound_by_its_slower_resource(macs, size, integer, limit, seconds):
    bound = ROOFLINE.bound(macs, size, integer)
    assert bound.limit == limit
    assert bound.seconds == pytest.approx(seconds)


def test_a_roofline_survives_json():
    assert Roofline.from_json(json.loads(json.dumps(ROOFLINE.to_json()))) == ROOFLINE
