from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from supernet import integer_ops


def test_a_linear_layer_takes_any_number_of_leading_axes() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (2, 5, 24), dtype=torch.uint8, generator=generator)
    weight = torch.randint(-127, 128, (7, 24), dtype=torch.int8, generator=generator)
    bias = torch.randint(-9999, 9999, (7,), dtype=torch.int32, generator=generator)
    scale = torch.rand(7, generator=generator)
    zero_point = torch.tensor(9, dtype=torch.int32)
    out = integer_ops.qlinear(x, zero_point, weight, bias, scale)
    total = (x.long() - 9) @ weight.long().T + bias  # [2, 5, 7]
    assert out.shape == (2, 5, 7)
    assert torch.equal(out, total.float() * scale)
    rows = integer_ops.qlinear(x.reshape(10, 24), zero_point, weight, bias, scale)
    assert torch.equal(rows.reshape(2, 5, 7), out)
    torch.library.opcheck(
        torch.ops.netcarve.qlinear.default,
        (x, zero_point, weight, bias, scale),
        test_utils=("test_schema", "test_faketensor"),
    )


def integers(shape, low, high, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high + 1, shape, generator=generator)


@pytest.mark.parametrize("signed", [False, True])
def test_asymmetric_weights_are_the_products_and_a_correction(signed):
    low, high = (-127, 127) if signed else (0, 255)
    x, zero_point = integers((2, 6, 5, 5), low, high, 0), -7 if signed else 200
    weight, zeros = integers((4, 6, 3, 3), -128, 127, 1), integers((4,), -128, 127, 2)
    bias, scale = integers((4,), -9999, 9999, 3), torch.rand(4) + 0.5
    centred = F.pad(x - zero_point, (1, 1, 1, 1))  # padding contributes zero
    windows = centred.unfold(2, 3, 2).unfold(3, 3, 2)  # [N, I, H', W', k, k]
    products = torch.einsum("nihwkl,oikl->nohw", windows, weight)
    correction = windows.sum((1, 4, 5))[:, None] * zeros[:, None, None]
    total = products - correction + bias[:, None, None]
    arguments = (
        x.to(torch.int8 if signed else torch.uint8),
        torch.tensor(zero_point, dtype=torch.int32),
        weight.to(torch.int8),
        bias.to(torch.int32),
        scale,
    )
    found = integer_ops.qconv2d(*arguments, 2, 1, 1, 8, zeros.to(torch.int8))
    assert torch.equal(found, total.float() * scale[:, None, None])
    torch.library.opcheck(
        torch.ops.netcarve.qconv2d.default,
        (*arguments, 2, 1, 1, 8, zeros.to(torch.int8)),
        test_utils=("test_schema", "test_faketensor"),
    )
    flat = (arguments[0][:, :, 0, 0], arguments[1], arguments[2][:, :, 0, 0], *arguments[3:])
    expected = (x[:, :, 0, 0] - zero_point) @ (weight[:, :, 0, 0] - zeros[:, None]).T + bias
    found = integer_ops.qlinear(*flat, 8, zeros.to(torch.int8))
    assert torch.equal(found, expected.float() * scale)


def test_sums_of_many_products_stay_exact():
    """20000 products of the largest integers exceed what float32 adds exactly."""
    x, zero = torch.full((1, 20_001), 255, dtype=torch.uint8), torch.tensor(0, dtype=torch.int32)
    weight, zeros = torch.full((1, 20_001), 127, dtype=torch.int8), torch.tensor([-128]).char()
    bias, scale = torch.zeros(1, dtype=torch.int32), torch.ones(1)
    found = integer_ops.qlinear(x, zero, weight, bias, scale, 8, zeros)
    assert float(found) == float(torch.tensor(20_001 * 255 * 255).float())
    odd = torch.cat([x, torch.tensor([[1]], dtype=torch.uint8)], 1)
    more = torch.cat([weight, torch.tensor([[-127]], dtype=torch.int8)], 1)
    exact = 20_001 * 255 * 255 + 1
    found = integer_ops.qlinear(odd, zero, more, bias - 20_001 * 255 * 255, scale, 8, zeros)
    assert float(found) == exact - 20_001 * 255 * 255


@pytest.mark.parametrize("bounds", [(0, 255), (0, 15), (-127, 127), (-1, 1)])
def test_quantised_values_keep_to_their_range(bounds):
    x = torch.linspace(-300, 300, 601)
    scale, zero = torch.tensor(0.7), torch.tensor(0, dtype=torch.int32)
    codes = integer_ops.quantize(x, scale, zero, *bounds)
    assert codes.dtype is (torch.int8 if bounds[0] < 0 else torch.uint8)
    assert (int(codes.min()), int(codes.max())) == bounds
    real = integer_ops.dequantize(codes, scale, zero)
    inside = (x / 0.7 >= bounds[0]) & (x / 0.7 <= bounds[1])
    assert ((real - x)[inside].abs() <= 0.35 + 1e-4).all()
    torch.library.opcheck(
        torch.ops.netcarve.quantize.default,
        (x, scale, zero, *bounds),
        test_utils=("test_schema", "test_faketensor"),
    )
