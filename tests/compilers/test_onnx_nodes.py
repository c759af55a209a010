from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from compilers.frontend import trace
from compilers.onnx_export import export_onnx, run_onnx
from supernet import integer_ops


class WeightOnly(nn.Module):
    """RMSNorm, a linear layer of grouped int4 weights, and the mean over tokens."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        weight = torch.randint(-8, 8, (16, 64), generator=generator, dtype=torch.int8)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", torch.randn(16, generator=generator))
        self.register_buffer("scale", torch.rand((16, 2), generator=generator))
        self.norm = nn.RMSNorm(64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = integer_ops.weight_only_linear(self.norm(x), self.weight, self.bias, self.scale, 32, 4)
        return x.mean(1)


class Plain(nn.Module):
    """RMSNorm and the mean over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x).mean(1)


@pytest.mark.parametrize("network", [WeightOnly, Plain])
def test_means_are_written_as_the_operators_version_wants_them(network, tmp_path):
    module = network().eval()
    export_onnx(trace(module, (1, 5, 64)), tmp_path / "net.onnx")
    x = torch.randn((2, 5, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = module(x).numpy()
    found = run_onnx(tmp_path / "net.onnx", x.numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
