"""The kernels of a space are those of its subnets: all of them, and no others."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from compilers.frontend import trace
from compilers.fusion import fuse
from compilers.kernel_space import block_kernels, quantised_input, space_kernels
from compilers.kernels import Attention, Norm, Quantize
from compilers.spec_graph import subnet_graph
from spaces import get_space
from spaces.population import sample
from supernet.extract import Subnet
from tests.supernet.resnets import basic_space, bottleneck_space
from tests.supernet.tiny_vit import tiny_vit_space

SMALL = {
    "resolution": [20], "stage*.depth": [1], "stage*.expansion": [2], "stage*.kernel": [3],
    "stem.width": [8], "stage1.width": [16], "stage2.width": [24], "stage3.width": [48],
    "head.width": [96],
}  # fmt: skip
SMALL_VIT = {
    "resolution": [16], "*.depth": [1], "stem.width": [8], "*.kernel": [3], "stage1.width": [8],
    "stage1.expansion": [2], "*.mlp_ratio": [2], "stage2.heads": [1], "stage3.heads": [2],
}  # fmt: skip


@pytest.fixture(scope="module")
def digits():
    return get_space("mobilenetv3_digits")


def subnet_kernels(space, row):
    specs = space.layer_specs(space.from_indices(row))
    return [call.kernel for call in fuse(subnet_graph(specs)).calls]


@pytest.mark.slow
def test_real_builds_of_the_digits_space_call_no_other_kernel(digits):
    kernels = space_kernels(digits)
    assert len(kernels) == len(set(kernels)) >= 1000
    known = set(kernels)
    for row in sample(digits, 30, np.random.default_rng(1)):
        subnet = Subnet(digits.layer_specs(digits.from_indices(row)))
        graph = trace(subnet, (1, 1, subnet.resolution, subnet.resolution))
        assert {call.kernel for call in fuse(graph).calls} <= known


def test_a_small_space_holds_exactly_the_kernels_of_its_subnets(digits):
    space = digits.restrict(choices=SMALL)
    found = set()
    for row in sample(space, 150, np.random.default_rng(0)):
        found |= set(subnet_kernels(space, row))
    assert found == set(space_kernels(space))


@pytest.mark.parametrize("normalisation", ["batch", "layer"])
def test_a_small_space_with_attention_holds_exactly_the_kernels_of_its_subnets(normalisation):
    space = tiny_vit_space(normalisation).restrict(choices=SMALL_VIT)
    found = set()
    for row in sample(space, 300, np.random.default_rng(0)):
        found |= set(subnet_kernels(space, row))
    assert found == set(space_kernels(space))
    heads = [kernel for kernel in found if isinstance(kernel, Attention)]
    assert {kernel.value_dim for kernel in heads} == {16, 32, 48, 64}
    assert {kernel.output_dtype for kernel in heads} == {"float32", "uint8"}
    norms = {(k.input_dtype, k.output_dtype) for k in found if isinstance(k, Norm)}
    quantises = {("float32", "float32"), ("float32", "uint8")}
    assert norms == (quantises if normalisation == "layer" else set())


@pytest.mark.parametrize("make", [basic_space, bottleneck_space])
def test_a_space_with_projections_holds_exactly_the_kernels_of_its_subnets(make):
    """A block's input is stored as integers only if the projection reads them too."""
    whole = make()
    fixed = {d.name: d.choices[:1] for d in whole.dimensions if d.kind not in ("w_bits", "depth")}
    space = whole.restrict(choices=fixed | {"*.w_bits": [8, 32]})
    found = set()
    for row in sample(space, 200, np.random.default_rng(0)):
        found |= set(subnet_kernels(space, row))
    assert found == set(space_kernels(space))
    assert any(isinstance(kernel, Quantize) for kernel in found)


def test_restriction_leaves_fewer_kernels(digits):
    space = digits.restrict(choices=SMALL | {"*.w_bits": [32]})
    kernels = space_kernels(space)
    assert {k.input_dtype for k in kernels} == {"float32"}
    assert {k.output_dtype for k in kernels} == {"float32"}


def test_block_by_block_gives_the_kernels_of_the_subnet(digits):
    for row in sample(digits, 10, np.random.default_rng(2)):
        config = digits.from_indices(row)
        blocks = [
            slot.layers(config)
            for slot in digits.slots
            if slot.depth is None or int(config[slot.depth[0]]) >= slot.depth[1]
        ]
        found = []
        for number, layers in enumerate(blocks):
            after = number + 1 < len(blocks) and quantised_input(blocks[number + 1])
            found += block_kernels(layers, reads_input=number == 0, quantised_after=after)
        assert Counter(found) == Counter(subnet_kernels(digits, row))
