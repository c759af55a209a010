"""The non-linearities that a LayerSpec can name."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from spaces.layer_spec import Activation


def apply_activation(x: Tensor, activation: Activation) -> Tensor:
    """`x` after the non-linearity; any shape."""
    if activation is Activation.RELU:
        return F.relu(x)
    return F.hardswish(x) if activation is Activation.HARDSWISH else x
