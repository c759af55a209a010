"""The non-linearities by their definitions."""

from __future__ import annotations

from math import erf, exp

import pytest
import torch

from spaces.layer_spec import Activation
from supernet.activations import apply_activation

DEFINITIONS = {
    Activation.NONE: lambda x: x,
    Activation.RELU: lambda x: max(x, 0.0),
    Activation.HARDSWISH: lambda x: x * min(max(x + 3, 0.0), 6.0) / 6,
    Activation.GELU: lambda x: x * (1 + erf(x / 2**0.5)) / 2,
    Activation.SILU: lambda x: x / (1 + exp(-x)),
}


@pytest.mark.parametrize("activation", Activation)
def test_every_activation_follows_its_definition(activation: Activation) -> None:
    values = [-6.0, -3.0, -1.5, -0.1, 0.0, 0.7, 2.0, 3.5, 8.0]
    found = apply_activation(torch.tensor(values, dtype=torch.float64), activation)
    assert found.tolist() == pytest.approx([DEFINITIONS[activation](x) for x in values], abs=1e-12)
