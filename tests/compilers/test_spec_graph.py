"""A graph written from LayerSpecs is the one that tracing the subnet gives."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from compilers.errors import UnsupportedOperatorError
from compilers.frontend import trace
from compilers.fusion import fuse
from compilers.kernels import (
    Attention,
    Conv,
    Depthwise,
    Dequantize,
    Gemm,
    Norm,
    Quantize,
    WeightOnlyGemm,
)
from compilers.spec_graph import subnet_graph
from spaces import get_space
from spaces.layer_spec import LayerSpec, Operator
from spaces.population import sample
from spaces.quant_scheme import (
    PRECISIONS,
    S8_WEIGHT,
    U8_ACTIVATION,
    LayerPrecision,
    activation_scheme,
    weight_scheme,
)
from spaces.space import SearchSpace
from supernet.extract import Subnet
from tests.supernet.resnets import basic_space, bottleneck_space
from tests.supernet.tiny_vit import tiny_vit_space

LAYERS = (Conv, Depthwise, Gemm)
CONVERSIONS = (Quantize, Dequantize)


def calls(graph):
    """(site, kernel, what it reads) of each call, values numbered in the order they are written;
    conversions belong to no site."""
    fused = fuse(graph)
    number = {fused.input: 0} | {call.output: i for i, call in enumerate(fused.calls, 1)}
    number |= {name: f"constant{i}" for i, name in enumerate(fused.constants)}
    sites = ["" if isinstance(c.kernel, CONVERSIONS) else c.site for c in fused.calls]
    reads = [[number[name] for name in c.inputs] for c in fused.calls]
    kernels = [call.kernel for call in fused.calls]
    return list(zip(sites, kernels, reads, strict=True))


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


@pytest.mark.parametrize(("seed", "normalisation"), [(0, "batch"), (1, "batch"), (1, "layer")])
def test_subnets_with_attention_have_the_same_kernel_calls(make_subnet, seed, normalisation):
    space = tiny_vit_space(normalisation)
    row = sample(space, 1, np.random.default_rng(seed))[0]
    specs = space.layer_specs(space.from_indices(row))
    size = specs[0].in_size
    expected = calls(trace(make_subnet(specs), (1, 1, size, size)))
    assert calls(subnet_graph(specs)) == expected
    assert {site for site, kernel, _ in expected if isinstance(kernel, Attention)} == {
        spec.site for spec in specs if spec.operator is Operator.ATTENTION
    }
    assert [site for site, kernel, _ in expected if isinstance(kernel, Norm)] == [
        spec.site for spec in specs if spec.operator is Operator.LAYER_NORM
    ]


@pytest.mark.slow
def test_subnets_of_a_low_bit_space_have_the_same_kernel_calls():
    data = get_space("mobilenetv3_digits").to_json()
    settings = data["settings"] | {"schemes": ["fp32", "w2a8", "w4a8", "w8a8"]}
    space = SearchSpace.from_json(data | {"settings": settings, "choices": None})
    held = Counter()
    for row in sample(space, 3, np.random.default_rng(5)):
        specs = space.layer_specs(space.from_indices(row))
        size = specs[0].in_size
        expected = calls(trace(Subnet(specs), (1, 1, size, size)))
        assert calls(subnet_graph(specs)) == expected
        held.update(
            kernel.weight_bits
            for _, kernel, _ in expected
            if isinstance(kernel, LAYERS) and kernel.input_dtype == "uint8"
        )
    assert held.keys() == {4, 8}


@pytest.mark.parametrize("seed", range(3))
def test_layers_of_any_precision_have_the_same_kernel_calls(subnets, make_subnet, images, seed):
    rng = np.random.default_rng(seed)
    names = {
        weight_only: [n for n, found in PRECISIONS.items() if found.weight_only == weight_only]
        for weight_only in (False, True)
    }
    specs = [
        replace(
            spec,
            precision=PRECISIONS[str(rng.choice(names[spec.operator is Operator.LINEAR]))]
            if spec.precision.weight is not None
            else spec.precision,
        )
        for spec in subnets["w8a8"].specs
    ]
    expected = calls(trace(make_subnet(tuple(specs)), (1, *images.shape[1:])))
    assert calls(subnet_graph(specs)) == expected
    assert isinstance(expected[-1][1], WeightOnlyGemm)


@pytest.mark.parametrize("make", [basic_space, bottleneck_space])
def test_subnets_with_projections_have_the_same_kernel_calls(make):
    space = make()
    channels = space.family.input_channels
    for row in sample(space, 6, np.random.default_rng(7)):
        specs = space.layer_specs(space.from_indices(row))
        shape = (1, channels, specs[0].in_size, specs[0].in_size)
        assert calls(subnet_graph(specs)) == calls(trace(Subnet(specs), shape))


@pytest.mark.parametrize(
    ("operator", "precision"),
    [
        (Operator.LINEAR, LayerPrecision(S8_WEIGHT, None)),
        (Operator.CONV, PRECISIONS["w4a32g32"]),
        (Operator.LINEAR, LayerPrecision(PRECISIONS["w4a32g32"].weight, U8_ACTIVATION)),
    ],
)
def test_what_no_kernel_executes_is_an_error(operator, precision):
    spec = LayerSpec("fc", operator, 64, 8, precision=precision)
    with pytest.raises(UnsupportedOperatorError, match=f"fc.*{precision.name}"):
        subnet_graph([spec])


@pytest.mark.parametrize("operator", [Operator.CONV, Operator.LINEAR])
@pytest.mark.parametrize(
    ("weight", "activation"),
    [
        (weight_scheme(8, "per_tensor", "asymmetric"), U8_ACTIVATION),
        (weight_scheme(4, "per_group32"), U8_ACTIVATION),
        (S8_WEIGHT, activation_scheme(4)),
        (S8_WEIGHT, activation_scheme(8, "symmetric")),
        (S8_WEIGHT, activation_scheme(7, "symmetric", nonnegative=True)),
    ],
)
def test_a_form_that_no_kernel_executes_is_an_error_however_it_comes(operator, weight, activation):
    size = 1 if operator is Operator.LINEAR else 4
    spec = LayerSpec(
        "fc", operator, 64, 8, size, size, precision=LayerPrecision(weight, activation)
    )
    with pytest.raises(UnsupportedOperatorError, match=rf"fc: {operator} in {spec.precision.name}"):
        subnet_graph([spec])
    shape = (1, 64) if operator is Operator.LINEAR else (1, 64, 4, 4)
    with pytest.raises(UnsupportedOperatorError, match="kernel"):
        trace(Subnet([spec]), shape)
