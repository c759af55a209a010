from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.quant_scheme import S8_WEIGHT, U8_ACTIVATION, Granularity, QuantScheme, Symmetry
from supernet.errors import SupernetConfigError
from supernet.quantizers import PerFormQuantizer, fake_quantize


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


def test_gradients_are_those_of_lsq_plus():
    scheme = QuantScheme(3, Granularity.PER_TENSOR, Symmetry.ASYMMETRIC, signed=False)
    scale, zero = torch.tensor(0.5, requires_grad=True), torch.tensor(2.0, requires_grad=True)
    # 0.6 / 0.5 = 1.2 lies inside; -5 and 9 are clipped to codes 0 and 7.
    x = torch.tensor([0.6, -5.0, 9.0], requires_grad=True)
    grad = torch.tensor([1.0, 10.0, 100.0])
    fake_quantize(x, scale, zero, scheme, gradient_scale=0.25).backward(grad)
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 0.0, 0.0]
    expected_scale = 0.25 * (1 * (1 - 1.2) + 10 * (0 - 2) + 100 * (7 - 2))
    assert scale.grad.item() == pytest.approx(expected_scale, rel=1e-5)
    assert zero.grad.item() == pytest.approx(0.25 * -0.5 * 110, rel=1e-5)


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


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_calibration_beats_the_full_range(bits):
    scheme = QuantScheme(bits, Granularity.PER_CHANNEL, Symmetry.SYMMETRIC, signed=True)
    weight = torch.randn(16, 32, 3, 3, generator=torch.Generator().manual_seed(0))
    quantizer = PerFormQuantizer([scheme], tuple(weight.shape))
    quantizer.calibrate(weight, scheme)
    largest = weight.abs().amax((1, 2, 3), keepdim=True) / scheme.qmax
    naive = fake_quantize(weight, largest, torch.zeros(()), scheme)
    error = (quantizer(weight, scheme) - weight).abs().pow(2.4).mean()
    full = (naive - weight).abs().pow(2.4).mean()
    assert error <= full * (1 if bits == 8 else 0.95)


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
