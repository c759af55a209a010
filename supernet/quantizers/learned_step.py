"""Fake quantisation with a learned step: the gradients of LSQ and LSQ+.

LSQ (Esser et al. 2020) for symmetric schemes; LSQ+ (Bhalgat et al. 2020) with an *integer* zero
point for asymmetric ones, because integer kernels need one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spaces.quant_scheme import QuantScheme


class _LearnedStepSize(torch.autograd.Function):
    """x -> (clamp(round(x / s) + z, qmin, qmax) - z) * s with the straight-through gradients of
    LSQ+; `s` and `z` broadcast against `x`, `z` is rounded here."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int, weight: float
    ) -> Tensor:
        zero = torch.round(zero_point).clamp(qmin, qmax)
        shifted = torch.round(x * torch.reciprocal(scale)).add_(zero)
        codes = shifted.clamp(qmin, qmax)
        ctx.save_for_backward(x, scale, zero, shifted == codes, codes)
        ctx.weight = weight
        ctx.zero_point_shape = zero_point.shape
        return (codes - zero).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, scale, zero, inside, codes = ctx.saved_tensors
        grad_x = grad * inside
        grad_scale = grad_zero = None
        if ctx.needs_input_grad[1]:
            # d(output)/ds is round(v) - v inside the range and the clipped code outside, v = x / s.
            terms = (codes - zero).mul_(grad).sub_((x * torch.reciprocal(scale)).mul_(grad_x))
            grad_scale = terms.sum_to_size(scale.shape) * ctx.weight
        if ctx.needs_input_grad[2]:
            outside = (grad_x - grad) * scale
            grad_zero = outside.sum_to_size(ctx.zero_point_shape) * ctx.weight
        return grad_x, grad_scale, grad_zero, None, None, None


def fake_quantize(
    x: Tensor, scale: Tensor, zero_point: Tensor, scheme: QuantScheme, gradient_scale: float = 1.0
) -> Tensor:
    """Quantise and dequantise `x` with learned-step-size gradients.

    Args:
        x: float32 of any shape.
        scale: float32, > 0, broadcasts against `x`.
        zero_point: float32, broadcasts against `x`; rounded and clipped to the integer range.
        scheme: Gives the integer range.
        gradient_scale: Factor of the gradients of `scale` and `zero_point`.

    Returns:
        float32, the shape of `x`; every element is an integer multiple of its scale.
    """
    out: Tensor = _LearnedStepSize.apply(  # type: ignore[no-untyped-call]
        x, scale, zero_point, scheme.qmin, scheme.qmax, gradient_scale
    )
    return out
