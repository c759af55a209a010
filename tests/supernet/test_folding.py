from __future__ import annotations

import pytest
import torch

from spaces.quant_scheme import weight_scheme
from supernet.folding import fold_float, fold_integer, fold_quantised
from supernet.quantizers import IntegerTensor


def integers(codes: torch.Tensor, scale: torch.Tensor) -> IntegerTensor:
    return IntegerTensor(codes, scale, torch.zeros((), dtype=torch.int32))


def test_float_folding_is_convolution_then_normalisation():
    weight, multiplier, offset = torch.randn(3, 2, 3, 3), torch.randn(3), torch.randn(3)
    folded = fold_float(weight, multiplier, offset)
    assert torch.equal(folded["weight"][1], weight[1] * multiplier[1])
    assert torch.equal(folded["bias"], offset)
    assert folded["weight"].data_ptr() != weight.data_ptr()


def test_trained_integers_survive_and_every_scale_is_positive():
    codes = torch.randint(-127, 128, (4, 5), dtype=torch.int8)
    multiplier = torch.tensor([0.5, -0.25, 2.0, -1e-3])
    folded = fold_integer(
        integers(codes, torch.full((4, 1), 0.01)), torch.tensor(0.1), multiplier, torch.ones(4)
    )
    assert torch.equal(folded["weight"], codes * torch.sign(multiplier).to(torch.int8)[:, None])
    assert bool((folded["scale"] > 0).all())
    torch.testing.assert_close(folded["scale"], 0.001 * multiplier.abs())
    bias = folded["bias"] * folded["scale"]
    assert bool(((bias - 1).abs() <= folded["scale"] / 2 + 1e-6).all())


@pytest.mark.parametrize("gamma", [0.0, 1e-12, -1e-20, 1e-38])
@pytest.mark.parametrize("beta", [0.0, 3.0, -100.0])
def test_a_vanishing_gamma_leaves_a_constant_channel_with_a_bias_in_int32(gamma, beta):
    codes = torch.full((1, 4), 127, dtype=torch.int8)
    folded = fold_integer(
        integers(codes, torch.tensor([[1e-3]])),
        torch.tensor(1e-3),
        torch.tensor([gamma]),
        torch.tensor([beta]),
    )
    assert folded["scale"].item() > 0
    assert abs(int(folded["bias"])) <= 2**30
    acc = folded["weight"].sum().item() * 255  # the largest accumulator
    out = (acc + int(folded["bias"])) * folded["scale"].item()
    assert out == pytest.approx(beta + gamma * 127 * 4 * 255 * 1e-6, abs=1e-3, rel=1e-5)


def test_asymmetric_weights_have_no_kernel():
    weight = IntegerTensor(
        torch.zeros(2, 3, dtype=torch.int8), torch.ones(2, 1), torch.tensor([3, 0])
    )
    with pytest.raises(ValueError, match="symmetric"):
        fold_integer(weight, torch.tensor(1.0), torch.ones(2), torch.zeros(2))


def scheme(granularity: str, symmetry: str, bits: int = 8):
    return weight_scheme(bits, granularity, symmetry)


@pytest.mark.parametrize("bits", range(2, 9))
def test_a_negative_gamma_flips_asymmetric_integers_within_their_range(bits):
    form = scheme("per_channel", "asymmetric", bits)
    codes = torch.arange(form.qmin, form.qmax + 1).to(torch.int8).repeat(3, 1)
    zeros = torch.tensor([form.qmin, form.qmax, 0], dtype=torch.int32)
    weight = IntegerTensor(codes, torch.full((3, 1), 0.5), zeros[:, None])
    multiplier = torch.tensor([-1.0, -2.0, 3.0])
    folded = fold_quantised(weight, form, torch.tensor(0.1), multiplier, torch.zeros(3))
    stored = folded["weight"].int() - folded["weight_zero_point"].int()[:, None]
    sign = torch.tensor([-1, -1, 1])[:, None]
    assert torch.equal(stored, (codes.int() - zeros[:, None]) * sign)
    assert int(folded["weight"].min()) >= form.qmin
    assert int(folded["weight"].max()) <= form.qmax
    torch.testing.assert_close(folded["scale"], torch.tensor([0.05, 0.1, 0.15]))
    assert folded["weight_zero_point"].dtype is torch.int8


@pytest.mark.parametrize("gamma", [0.0, 1e-12, -1e-20])
@pytest.mark.parametrize("beta", [3.0, -100.0])
def test_a_vanishing_gamma_leaves_a_constant_channel_of_asymmetric_weights(gamma, beta):
    form = scheme("per_tensor", "asymmetric")
    weight = IntegerTensor(
        torch.tensor([[-128, 127]]).char(), torch.tensor(1e-3), torch.tensor(-128).int()
    )
    folded = fold_quantised(
        weight, form, torch.tensor(1e-3), torch.tensor([gamma]), torch.tensor([beta])
    )
    assert float(folded["scale"]) > 0
    assert abs(int(folded["bias"])) <= 2**30
    centred = folded["weight"].int() - folded["weight_zero_point"].int()[:, None]
    out = (int(centred.sum()) * 255 + int(folded["bias"])) * float(folded["scale"])
    assert out == pytest.approx(beta, abs=1e-3, rel=1e-5)


@pytest.mark.parametrize("symmetry", ["symmetric", "asymmetric"])
def test_groups_keep_their_integers_and_take_the_gamma_into_their_scales(symmetry):
    form = scheme("per_group4", symmetry, 4)
    codes = torch.randint(-7, 8, (3, 10, 3, 3)).char()
    scale, zeros = torch.rand(3, 3) + 0.1, torch.randint(-7, 8, (3, 3)).int()

    def spread(values: torch.Tensor) -> torch.Tensor:
        return values.repeat_interleave(4, 1)[:, :10, None, None]

    zero = spread(zeros) if symmetry == "asymmetric" else torch.zeros((), dtype=torch.int32)
    multiplier, offset = torch.tensor([0.5, -0.25, 0.0]), torch.randn(3)
    weight = IntegerTensor(codes, spread(scale), zero)
    folded = fold_quantised(weight, form, torch.tensor(0.5), multiplier, offset)
    assert torch.equal(folded["weight"], codes)
    assert torch.equal(folded["bias"], offset)
    torch.testing.assert_close(folded["scale"], scale * 0.5 * multiplier[:, None])
    if symmetry == "asymmetric":
        assert torch.equal(folded["weight_zero_point"], zeros.char())
    else:
        assert "weight_zero_point" not in folded
