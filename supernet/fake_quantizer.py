"""Learned-step-size fake quantisation of one tensor, under any of several schemes.

LSQ (Esser et al. 2020) for symmetric schemes; LSQ+ (Bhalgat et al. 2020) with an *integer* zero
point for asymmetric ones, because integer kernels need one. As in EQ-Net (Xu et al. 2023) nothing
is shared between schemes: each has its own scale and zero point, and only the float tensor is
common. Scales are stored as logarithms, which keeps them positive and makes the relative step of
an adaptive optimiser independent of their size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spaces.quant_scheme import Granularity, QuantScheme, Symmetry
from supernet.errors import SupernetConfigError

_CALIBRATION_CANDIDATES = 40
_CALIBRATION_STEP = 0.02
_CALIBRATION_NORM = 2.4
_SMALLEST_SCALE = 1e-8


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


@dataclass(frozen=True, slots=True)
class IntegerTensor:
    """Integers with their scales.

    Attributes:
        codes: int8 or uint8, the shape of the float tensor.
        scale: float32, broadcasts against `codes`.
        zero_point: int32, broadcasts against `codes`.
    """

    codes: Tensor
    scale: Tensor
    zero_point: Tensor

    def dequantize(self) -> Tensor:
        """float32 (codes - zero_point) * scale."""
        return (self.codes.to(torch.float32) - self.zero_point.to(torch.float32)) * self.scale


class FakeQuantizer(nn.Module):
    """Learned quantisation of one tensor; `forward(x, scheme)` picks the parameters of a scheme.

    A tensor may be narrower than `shape`: scales of the leading channels and groups are used, as
    views, so that one store serves every width of an elastic layer.

    Args:
        schemes: Every scheme that this tensor may have.
        shape: Shape of the largest weight [O, I, ...], or None for an activation [N, ...].

    Raises:
        SupernetConfigError: An activation scheme that is not per tensor.
    """

    def __init__(self, schemes: Iterable[QuantScheme], shape: tuple[int, ...] | None) -> None:
        super().__init__()
        self.schemes = tuple(sorted(set(schemes), key=lambda scheme: scheme.key))
        self.is_activation = shape is None
        self.log_scale = nn.ParameterDict()
        self.zero_point = nn.ParameterDict()
        for scheme in self.schemes:
            size = _scale_shape(scheme, shape)
            name = _name(scheme)
            self.log_scale[name] = nn.Parameter(torch.full(size, -3.0))
            if scheme.symmetry is Symmetry.ASYMMETRIC:
                middle = (scheme.qmin + scheme.qmax + 1) / 2
                self.zero_point[name] = nn.Parameter(torch.full(size, middle))

    def parameters_for(self, x: Tensor, scheme: QuantScheme) -> tuple[Tensor, Tensor]:
        """Scale and zero point (not yet rounded) of `x` under `scheme`, broadcastable to `x`.

        Raises:
            SupernetConfigError: The quantiser was not built for `scheme`.
        """
        name = _name(scheme)
        if name not in self.log_scale:
            known = ", ".join(s.key for s in self.schemes) or "none"
            raise SupernetConfigError(f"no quantiser for scheme {scheme.key!r}; known: {known}")
        scale = _broadcast(torch.exp(self.log_scale[name]), x, scheme)
        if scheme.symmetry is Symmetry.SYMMETRIC:
            return scale, scale.new_zeros(())
        return scale, _broadcast(self.zero_point[name], x, scheme)

    def forward(self, x: Tensor, scheme: QuantScheme) -> Tensor:
        """The fake-quantised `x`; gradients of scales are weighted by 1 / sqrt(qmax * N), N being
        the elements per sample that share one scale (Esser et al. 2020)."""
        scale, zero_point = self.parameters_for(x, scheme)
        samples = x.shape[0] if self.is_activation else 1
        shared = max(1, x.numel() // (self.log_scale[_name(scheme)].numel() * samples))
        weight = (scheme.qmax * shared) ** -0.5
        return fake_quantize(x, scale, zero_point, scheme, weight)

    @torch.no_grad()
    def calibrate(self, x: Tensor, scheme: QuantScheme) -> None:
        """Set scale and zero point for values like `x` (of the full shape for a weight).

        Tries shrunken ranges and keeps, per scale, the one with the least mean |x - x^|^2.4
        (EQ-Net, Xu et al. 2023).
        """
        name = _name(scheme)
        rows = _rows(x, scheme)  # [scales, elements]
        low, high = rows.amin(1), rows.amax(1)
        if scheme.symmetry is Symmetry.SYMMETRIC:
            high = torch.maximum(high.abs(), low.abs()) if scheme.signed else high.clamp(min=0)
            low = -high if scheme.signed else torch.zeros_like(high)
        else:
            low, high = low.clamp(max=0), high.clamp(min=0)
        best_error = torch.full_like(low, torch.inf)
        best_scale, best_zero = torch.ones_like(low), torch.zeros_like(low)
        for step in range(_CALIBRATION_CANDIDATES):
            shrink = 1 - _CALIBRATION_STEP * step
            width = (high - low) * shrink
            scale = (width / (scheme.qmax - scheme.qmin)).clamp(min=_SMALLEST_SCALE)
            zero = torch.zeros_like(low)
            if scheme.symmetry is Symmetry.ASYMMETRIC:
                zero = (scheme.qmin - torch.round(low * shrink / scale)).clamp(
                    scheme.qmin, scheme.qmax
                )
            quantised = fake_quantize(rows, scale[:, None], zero[:, None], scheme)
            error = (rows - quantised).abs().pow(_CALIBRATION_NORM).mean(1)
            better = error < best_error
            best_error = torch.where(better, error, best_error)
            best_scale = torch.where(better, scale, best_scale)
            best_zero = torch.where(better, zero, best_zero)
        self.log_scale[name].copy_(best_scale.log().view_as(self.log_scale[name]))
        if name in self.zero_point:
            self.zero_point[name].copy_(best_zero.view_as(self.zero_point[name]))

    @torch.no_grad()
    def export_int(self, x: Tensor, scheme: QuantScheme) -> IntegerTensor:
        """The integers of `x`; dequantising them equals `forward(x, scheme)` bit for bit."""
        scale, zero_point = self.parameters_for(x, scheme)
        zero = torch.round(zero_point).clamp(scheme.qmin, scheme.qmax)
        codes = torch.round(x * torch.reciprocal(scale)) + zero
        codes = codes.clamp(scheme.qmin, scheme.qmax)
        dtype = torch.int8 if scheme.signed else torch.uint8
        return IntegerTensor(codes.to(dtype), scale.clone(), zero.to(torch.int32))


def _name(scheme: QuantScheme) -> str:
    # Parameter names may not contain dots.
    return scheme.key.replace(".", "_")


def _scale_shape(scheme: QuantScheme, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    if scheme.granularity is Granularity.PER_TENSOR:
        return ()
    if shape is None:
        raise SupernetConfigError(
            f"activation scheme {scheme.key!r}: only granularity per_tensor is allowed"
        )
    if scheme.granularity is Granularity.PER_CHANNEL:
        return (shape[0],)
    return (shape[0], -(-shape[1] // (scheme.group_size or 1)))


def _broadcast(values: Tensor, x: Tensor, scheme: QuantScheme) -> Tensor:
    if scheme.granularity is Granularity.PER_TENSOR:
        return values
    trailing = (1,) * (x.dim() - 1)
    if scheme.granularity is Granularity.PER_CHANNEL:
        return values[: x.shape[0]].view(-1, *trailing)
    spread = values[: x.shape[0]].repeat_interleave(scheme.group_size or 1, dim=1)
    return spread[:, : x.shape[1]].reshape(x.shape[0], x.shape[1], *trailing[1:])


def _rows(x: Tensor, scheme: QuantScheme) -> Tensor:
    """[scales, elements that share one]; short last groups are padded with zeros."""
    if scheme.granularity is Granularity.PER_TENSOR:
        return x.reshape(1, -1)
    if scheme.granularity is Granularity.PER_CHANNEL:
        return x.reshape(x.shape[0], -1)
    size = scheme.group_size or 1
    flat = x.reshape(x.shape[0], x.shape[1], -1)  # [O, I, k * k]
    missing = -x.shape[1] % size
    flat = torch.cat([flat, flat.new_zeros(x.shape[0], missing, flat.shape[2])], dim=1)
    return flat.reshape(-1, size * flat.shape[2])
