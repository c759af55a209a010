"""Fake quantisation with a learned step: the gradients of LSQ and LSQ+.

LSQ (Esser et al. 2020) for symmetric schemes; LSQ+ (Bhalgat et al. 2020) with an *integer* zero
point for asymmetric ones, because integer kernels need one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spaces.quant_scheme import QuantScheme

# Rounding moves a value by at most a half; what moved further was clipped.
_HALF = 0.5 + 2.0**-20


class _LearnedStepSize(torch.autograd.Function):
    """x -> (clamp(round(x / s) + z, qmin, qmax) - z) * s with the straight-through gradients of
    LSQ+; `s` and `z` broadcast against `x`, `z` is rounded here.

    Most of a quantised layer's time is spent reading and writing maps, so every pass counts: the
    range is moved by the zero point instead of the integers, and what was clipped is found again
    from how far the integers lie from `x / s`.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int, weight: float
    ) -> Tensor:
        zero = torch.round(zero_point).clamp(qmin, qmax)
        steps = (x * torch.reciprocal(scale)).round_()
        torch.clamp(steps, qmin - zero, qmax - zero, out=steps)
        ctx.save_for_backward(x, scale, steps)
        ctx.weight = weight
        ctx.zero_point_shape = zero_point.shape
        return steps * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, scale, steps = ctx.saved_tensors
        moved = torch.sub(steps, x * torch.reciprocal(scale))
        # The gradient of a clamp of `moved`: that of the output where nothing was clipped.
        grad_x = torch.ops.aten.hardtanh_backward(grad, moved, -_HALF, _HALF)
        grad_scale = grad_zero = None
        _, needs_scale, needs_zero = ctx.needs_input_grad[:3]
        if needs_scale or needs_zero:
            clipped = grad - grad_x
        if needs_zero:
            grad_zero = (
                clipped.sum() * -scale
                if scale.dim() == 0
                else -(clipped * scale).sum_to_size(ctx.zero_point_shape)
            ) * ctx.weight
        if needs_scale:
            # d(output)/ds is round(v) - v inside the range and the clipped step outside, v = x / s.
            if scale.dim() == 0:
                grad_scale = _dot(grad_x, moved) + _dot(clipped, steps)
            else:
                terms = moved.mul_(grad_x).addcmul_(clipped, steps)
                grad_scale = terms.sum_to_size(scale.shape)
            grad_scale = grad_scale * ctx.weight
        return grad_x, grad_scale, grad_zero, None, None, None


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Sum of products of two tensors of one shape."""
    if a.dim() == 4 and a.is_contiguous(memory_format=torch.channels_last):
        # Flattened as it lies, without a copy.
        a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)
    return torch.dot(a.reshape(-1), b.reshape(-1))


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
