"""The non-linearities that a LayerSpec can name."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from spaces.layer_spec import Activation

_FUNCTIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    Activation.NONE: lambda x: x,
    Activation.RELU: F.relu,
    Activation.HARDSWISH: F.hardswish,
    Activation.GELU: F.gelu,
    Activation.SILU: F.silu,
}


def apply_activation(x: Tensor, activation: Activation) -> Tensor:
    """`x` after the non-linearity; any shape."""
    return _FUNCTIONS[activation](x)
