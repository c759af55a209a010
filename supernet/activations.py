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


def apply_activation(x: Tensor, activation: Activation, *, inplace: bool = False) -> Tensor:
    """`x` after the non-linearity; any shape. With `inplace`, `x` may become the result: nothing
    else may need it, its own gradient included."""
    if inplace and activation is Activation.RELU:
        return F.relu(x, inplace=True)
    return _FUNCTIONS[activation](x)
