"""A graph written from LayerSpecs is the one that tracing the subnet gives."""

from __future__ import annotations

import numpy as np
import pytest

from compilers.errors import UnsupportedOperatorError
from compilers.frontend import trace
from compilers.fusion import fuse
from compilers.spec_graph import subnet_graph
from spaces import get_space
from spaces.layer_spec import LayerSpec, Operator
from spaces.population import sample
from spaces.quant_scheme import S8_WEIGHT, LayerPrecision
from supernet.extract import Subnet


def calls(graph):
    """(site, kernel, what it reads) of each call, values numbered in the order they are written."""
    fused = fuse(graph)
    number = {fused.input: 0} | {call.output: i for i, call in enumerate(fused.calls, 1)}
    return [(c.site, c.kernel, [number[name] for name in c.inputs]) for c in fused.calls]


@pytest.mark.parametrize("name", ["fp32", "w8a8", "mixed"])
def test_small_subnets_have_the_same_kernel_calls(subnets, images, name):
    subnet = subnets[name]
    assert calls(subnet_graph(subnet.specs)) == calls(trace(subnet, (1, *images.shape[1:])))


@pytest.mark.slow
def test_subnets_of_the_digits_space_have_the_same_kernel_calls():
    space = get_space("mobilenetv3_digits")
    for row in sample(space, 4, np.random.default_rng(3)):
        specs = space.layer_specs(space.from_indices(row))
        subnet = Subnet(specs)
        size = subnet.resolution
        assert calls(subnet_graph(specs)) == calls(trace(subnet, (1, 1, size, size)))


def test_what_no_kernel_executes_is_an_error():
    spec = LayerSpec("fc", Operator.LINEAR, 8, 8, precision=LayerPrecision(S8_WEIGHT, None))
    with pytest.raises(UnsupportedOperatorError, match="fc"):
        subnet_graph([spec])
