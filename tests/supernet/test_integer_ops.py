from __future__ import annotations

import torch

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
