from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from supernet import grouped_ops

CHECKS = ("test_schema", "test_faketensor")


def integers(shape, low, high, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high + 1, shape, generator=generator)


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize(
    ("inputs", "groups", "size"), [(10, 1, 4), (10, 1, 16), (6, 6, 4), (12, 2, 4)]
)
def test_every_group_of_a_convolution_accumulates_exactly(inputs, groups, size, asymmetric):
    outputs, per_channel = 12, inputs // groups
    parts = -(-per_channel // size)
    x, zero_point = integers((2, inputs, 5, 5), 0, 255, 0), 31
    weight = integers((outputs, per_channel, 3, 3), -128, 127, 1)
    zeros = integers((outputs, parts), -128, 127, 2)
    scale, bias = torch.randn(outputs, parts), torch.randn(outputs)
    spread = zeros.repeat_interleave(size, 1)[:, :per_channel, None, None]
    centred = weight - spread * asymmetric
    expected = bias.double()[:, None, None]
    for part in range(parts):
        kept = torch.zeros_like(centred)
        span = slice(part * size, (part + 1) * size)
        kept[:, span] = centred[:, span]
        sums = F.conv2d((x - zero_point).double(), kept.double(), None, 2, 1, 1, groups)
        expected = expected + sums * scale[:, part].double()[:, None, None]
    arguments = (
        x.to(torch.uint8), torch.tensor(zero_point, dtype=torch.int32), weight.to(torch.int8),
        bias, scale, size, 2, 1, groups, 8, zeros.to(torch.int8) if asymmetric else None,
    )  # fmt: skip
    assert torch.equal(grouped_ops.qconv2d_grouped(*arguments), expected.float())
    operator = torch.ops.netcarve.qconv2d_grouped.default
    torch.library.opcheck(operator, arguments, test_utils=CHECKS)


@pytest.mark.parametrize("asymmetric", [False, True])
def test_every_group_of_a_matrix_product_accumulates_exactly(asymmetric):
    x, zero_point = integers((2, 3, 10), -127, 127, 0), 0
    weight, zeros = integers((7, 10), -128, 127, 1), integers((7, 3), -128, 127, 2)
    scale, bias = torch.randn(7, 3), torch.randn(7)
    expected = bias.double()
    for part in range(3):
        span = slice(4 * part, 4 * part + 4)
        centred = weight[:, span] - zeros[:, part, None] * asymmetric
        sums = (x[..., span] @ centred.T).double()
        expected = expected + sums * scale[:, part].double()
    arguments = (
        x.to(torch.int8), torch.tensor(zero_point, dtype=torch.int32), weight.to(torch.int8),
        bias, scale, 4, 8, zeros.to(torch.int8) if asymmetric else None,
    )  # fmt: skip
    assert torch.equal(grouped_ops.qlinear_grouped(*arguments), expected.float())
    operator = torch.ops.netcarve.qlinear_grouped.default
    torch.library.opcheck(operator, arguments, test_utils=CHECKS)
