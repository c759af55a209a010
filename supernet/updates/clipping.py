"""Clipping of gradients: by value, by their common norm, or relative to the weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

Clip = Literal["none", "value", "norm", "adaptive"]

_SMALLEST_WEIGHT_NORM = 1e-3


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], kind: Clip, limit: float) -> None:
    """Clip the gradients of `parameters` in place.

    Args:
        parameters: Those without a gradient are passed over.
        kind: `value`: every element to -limit..limit; `norm`: all together to the L2 norm `limit`;
            `adaptive`: each output channel's to `limit` times the norm of its weights (Brock et al.
            2021), vectors as a whole; `none`: nothing.
        limit: Greater than 0.
    """
    present = [p for p in parameters if p.grad is not None]
    if kind == "value":
        nn.utils.clip_grad_value_(present, limit)
    elif kind == "norm":
        nn.utils.clip_grad_norm_(present, limit)
    elif kind == "adaptive":
        for parameter in present:
            assert parameter.grad is not None
            largest = limit * _unit_norm(parameter).clamp(min=_SMALLEST_WEIGHT_NORM)
            norm = _unit_norm(parameter.grad)
            # A tiny floor keeps a gradient of zero at zero.
            parameter.grad.mul_((largest / norm.clamp(min=1e-12)).clamp(max=1.0))


def _unit_norm(x: Tensor) -> Tensor:
    """L2 norms that broadcast against `x`: [O, 1, ...] of a matrix or kernel, else a scalar."""
    if x.dim() <= 1:
        return x.norm()
    return x.flatten(1).norm(dim=1).view(-1, *(1,) * (x.dim() - 1))
