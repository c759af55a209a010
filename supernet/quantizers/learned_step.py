"""Fake quantisation with a learned step: the gradients of LSQ and LSQ+.

LSQ (Esser et al. 2020) for symmetric schemes; LSQ+ (Bhalgat et al. 2020) with an *integer* zero
point for asymmetric ones, because integer kernels need one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spaces.quant_scheme import QuantScheme

# Rounding moves a value by at most half a step; what moved further was clipped.
_HALF = 0.5 + 2.0**-12


class _LearnedStepSize(torch.autograd.Function):
    """x -> (clamp(round(x / s) + z, qmin, qmax) - z) * s with the straight-through gradients of
    LSQ+; `s` and `z` broadcast against `x`, `z` is rounded here.

    Most of a quantised layer's time is spent reading and writing maps, so every pass counts: the
    range is moved by the zero point instead of the integers, what was clipped is found again from
    how far the output lies from `x`, and no more than these two are kept.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int, weight: float
    ) -> Tensor:
        zero = torch.round(zero_point).clamp(qmin, qmax)
        out = (x * torch.reciprocal(scale)).round_()
        if zero.dim() == 0 and zero.device.type == "cpu":
            out.clamp_(qmin - float(zero), qmax - float(zero))
        else:
            torch.clamp(out, qmin - zero, qmax - zero, out=out)
        out.mul_(scale)
        ctx.save_for_backward(x, scale, out)
        ctx.weight = weight
        ctx.zero_point_shape = zero_point.shape
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, scale, out = ctx.saved_tensors
        moved, half = out - x, _HALF
        if scale.dim() == 0 and scale.device.type == "cpu":
            half *= float(scale)
        else:
            moved *= torch.reciprocal(scale)
        # The gradient of a clamp of `moved`: that of the output where nothing was clipped.
        grad_x = torch.ops.aten.hardtanh_backward.grad_input(
            grad, moved, -half, half, grad_input=moved
        )
        grad_scale = grad_zero = None
        _, needs_scale, needs_zero = ctx.needs_input_grad[:3]
        if needs_scale:
            # d(output)/ds is (output - x) / s inside the range and output / s outside.
            if scale.dim() == 0:
                total = _dot(grad, out) - _dot(grad_x, x)
            else:
                total = (grad * out).sub_(grad_x * x).sum_to_size(scale.shape)
            grad_scale = total / scale * ctx.weight
        if needs_zero:
            if scale.dim() == 0:
                outside = grad_x.sum() - grad.sum()
            else:
                outside = (grad_x - grad).sum_to_size(ctx.zero_point_shape)
            grad_zero = outside * scale * ctx.weight
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
