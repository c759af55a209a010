from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.quant_scheme import (
    S8_WEIGHT,
    U8_ACTIVATION,
    Granularity,
    QuantScheme,
    Symmetry,
    weight_scheme,
)
from supernet.errors import SupernetConfigError
from supernet.quantizers import PerFormQuantizer

GRANULARITIES = ("per_tensor", "per_channel", "per_group4")


@st.composite
def weight_schemes(draw: st.DrawFn) -> QuantScheme:
    granularity = draw(st.sampled_from(Granularity))
    return QuantScheme(
        bits=draw(st.integers(2, 8)),
        granularity=granularity,
        symmetry=draw(st.sampled_from(Symmetry)),
        signed=draw(st.booleans()),
        group_size=draw(st.integers(1, 5)) if granularity is Granularity.PER_GROUP else None,
    )


@settings(max_examples=120, deadline=None)
@given(
    scheme=weight_schemes(),
    seed=st.integers(0, 10_000),
    full=st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3])),
    spread=st.floats(1e-4, 1e3),
    data=st.data(),
)
def test_integers_dequantise_to_the_fake_quantised_weight_bit_for_bit(
    scheme, seed, full, spread, data
):
    outputs, inputs, kernel = full
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, kernel, kernel, generator=generator) * spread
    quantizer = PerFormQuantizer([scheme], tuple(weight.shape))
    quantizer.calibrate(weight, scheme)
    part = weight[: data.draw(st.integers(1, outputs)), : data.draw(st.integers(1, inputs))]

    integers = quantizer.export_int(part, scheme)
    fake = quantizer(part, scheme)

    assert torch.equal(integers.dequantize(), fake)
    assert int(integers.codes.min()) >= scheme.qmin
    assert int(integers.codes.max()) <= scheme.qmax
    if scheme.symmetry is Symmetry.SYMMETRIC:
        assert not integers.zero_point.any()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.floats(-5, 5), bits=st.integers(2, 8))
def test_integers_dequantise_to_the_fake_quantised_activation_bit_for_bit(seed, shift, bits):
    scheme = QuantScheme(bits, Granularity.PER_TENSOR, Symmetry.ASYMMETRIC, signed=False)
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(seed)) + shift
    quantizer = PerFormQuantizer([scheme], None)
    quantizer.calibrate(x, scheme)
    assert torch.equal(quantizer.export_int(x, scheme).dequantize(), quantizer(x, scheme))


def test_gradient_scale_counts_elements_per_scale_and_sample():
    x = torch.full((4, 2, 3, 3), 100.0)  # every element is clipped to 255
    quantizer = PerFormQuantizer([U8_ACTIVATION], None)
    with torch.no_grad():
        quantizer.log_scale["u8_per_tensor_asymmetric"].zero_()
        quantizer.zero_point["u8_per_tensor_asymmetric"].fill_(200)
    quantizer(x, U8_ACTIVATION).sum().backward()
    grad = quantizer.log_scale["u8_per_tensor_asymmetric"].grad
    assert grad.item() == pytest.approx(x.numel() * 55 / np.sqrt(255 * 2 * 3 * 3), rel=1e-5)

    weight = torch.full((2, 5, 3, 3), 300.0)
    quantizer = PerFormQuantizer([S8_WEIGHT], tuple(weight.shape))
    with torch.no_grad():
        quantizer.log_scale["s8_per_channel_symmetric"].zero_()
    quantizer(weight, S8_WEIGHT).sum().backward()
    grad = quantizer.log_scale["s8_per_channel_symmetric"].grad
    assert grad.tolist() == pytest.approx([45 * 127 / np.sqrt(127 * 45)] * 2, rel=1e-5)


def test_symmetric_schemes_have_no_offset_to_learn():
    schemes = [weight_scheme(b, g, s) for b in (2, 8) for g in GRANULARITIES for s in Symmetry]
    weight = torch.randn(4, 6, 3, 3)
    quantizer = PerFormQuantizer(schemes, tuple(weight.shape))
    for scheme in schemes:
        quantizer.calibrate(weight, scheme)
        quantizer.zero_grad()
        (quantizer(weight, scheme) * weight).sum().backward()
        integers = quantizer.export_int(weight, scheme)
        moved = {n for n, p in quantizer.named_parameters() if p.grad is not None}
        name = scheme.key.replace(".", "_")
        if scheme.symmetry is Symmetry.SYMMETRIC:
            assert moved == {f"log_scale.{name}"}
            assert not integers.zero_point.any()
        else:
            assert moved == {f"log_scale.{name}", f"zero_point.{name}"}
            assert integers.zero_point.dtype is torch.int32


def test_schemes_share_the_weight_but_no_parameter():
    four = QuantScheme(4, Granularity.PER_TENSOR, Symmetry.ASYMMETRIC, signed=True)
    weight = torch.randn(6, 4, 3, 3)
    quantizer = PerFormQuantizer([S8_WEIGHT, four], tuple(weight.shape))
    quantizer.calibrate(weight, S8_WEIGHT)
    before = quantizer(weight, S8_WEIGHT).clone()
    quantizer.calibrate(weight * 3, four)
    assert torch.equal(quantizer(weight, S8_WEIGHT), before)
    quantizer(weight, four).sum().backward()
    assert quantizer.log_scale["s8_per_channel_symmetric"].grad is None
    assert quantizer.log_scale["s4_per_tensor_asymmetric"].grad is not None


def test_non_negative_activations_use_the_whole_range():
    x = torch.rand(8, 4, 6, 6) * 6
    quantizer = PerFormQuantizer([U8_ACTIVATION], None)
    quantizer.calibrate(x, U8_ACTIVATION)
    integers = quantizer.export_int(x, U8_ACTIVATION)
    assert int(integers.zero_point) == 0
    assert int(integers.codes.max()) >= 250


def test_unknown_scheme_and_activation_granularity_are_typed_errors():
    with pytest.raises(SupernetConfigError, match=r"u8\.per_tensor\.asymmetric"):
        PerFormQuantizer([S8_WEIGHT], (4, 4))(torch.ones(4, 4), U8_ACTIVATION)
    with pytest.raises(SupernetConfigError, match="only granularity per_tensor"):
        PerFormQuantizer([S8_WEIGHT], None)
