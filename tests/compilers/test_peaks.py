"""The kernels behind the roofline do all the work that they are credited with."""

from __future__ import annotations

import numpy as np
import pytest

from compilers.intrinsics import integer_dot
from compilers.peaks import CHAINS, dot_products, multiply_adds, reads
from compilers.targets import ISAS, host_isas

STEPS = 20_000


def run(benchmark, *arrays):
    """The output of a kernel for other inputs than its own."""
    import tvm

    given = [tvm.runtime.tensor(array) for array in arrays]
    benchmark.function(*given, benchmark.tensors[-1])
    return benchmark.tensors[-1].numpy()


@pytest.mark.slow
@pytest.mark.parametrize("isa", host_isas())
def test_every_sum_is_multiplied_and_added_to_in_every_step(isa):
    lanes = ISAS[isa].vector_lanes
    benchmark = multiply_adds(ISAS[isa])
    out = run(benchmark, np.ones((CHAINS + 2) * lanes, np.float32))
    np.testing.assert_array_equal(out, np.full(CHAINS * lanes, 1.0 + STEPS))
    assert benchmark.work == 2 * out.size * STEPS


@pytest.mark.parametrize("isa", host_isas())
def test_every_sum_takes_its_dot_product_in_every_step(isa):
    lanes, group = ISAS[isa].vector_lanes, integer_dot(ISAS[isa]).group
    benchmark = dot_products(ISAS[isa])
    weights = np.zeros((lanes, group), benchmark.tensors[1].numpy().dtype)
    weights[:, 0] = 1
    out = run(benchmark, np.ones(CHAINS * lanes, np.int32), weights.ravel())
    # sum += its own lowest byte, unsigned, or its lowest 16 bits, signed: both end at 0 of these.
    expected = {4: 256, 2: 0}[group]
    np.testing.assert_array_equal(out, np.full(CHAINS * lanes, expected))
    assert benchmark.work == 2 * group * out.size * STEPS


@pytest.mark.parametrize("size", [24 << 10, 6 << 20])
def test_every_byte_is_read_as_often_as_it_is_counted(size):
    isa = ISAS[host_isas()[0]]
    benchmark = reads(isa, size)
    count = benchmark.tensors[0].numpy().size
    assert size * 0.95 <= 4 * count <= size
    out = run(benchmark, np.ones(count, np.float32))
    assert out.sum() * 4 == benchmark.work
