from __future__ import annotations

import pytest
import torch

from supernet.folding import fold_float, fold_integer
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
