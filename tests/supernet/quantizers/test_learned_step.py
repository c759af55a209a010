from __future__ import annotations

import pytest
import torch

from spaces.quant_scheme import Granularity, QuantScheme, Symmetry
from supernet.quantizers import fake_quantize


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
