"""Scales of all widths that are powers of two apart: Double Rounding.

From "Nearly Lossless Adaptive Bit Switching" (arXiv 2502.01199): a weight is rounded to the highest
width h with a learned scale s, and those integers are rounded again to a narrower width l, in units
of s * 2**(h - l). So only the h-bit integers need storing, and a shift changes the width.

What we changed: the second rounding is floor(q / 2**d + 1/2) in training too, which is the shift
(q + 2**(d - 1)) >> d; the paper's round-half-even gives other integers for some of them. The
symmetric range is narrow. Activations, as there, have a scale and an offset for every width.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from spaces.quant_scheme import QuantScheme, Symmetry
from supernet.errors import SupernetConfigError
from supernet.quantizers.base import QUANTIZERS, FakeQuantizer, IntegerTensor, code_dtype


class _DoubleRounding(torch.autograd.Function):
    """x -> q_l * s with q_l the twice rounded x and s the narrow scale; straight-through inside of
    both clips. The gradient of s is LSQ's, since s is the wide scale times a constant."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, wide: QuantScheme, narrow: QuantScheme, weight: float
    ) -> Tensor:
        step = 0.5 ** (wide.bits - narrow.bits)
        first = torch.round(x * torch.reciprocal(scale * step))
        clipped = first.clamp(wide.qmin, wide.qmax)
        second = torch.floor(clipped * step + 0.5)
        codes = second.clamp(narrow.qmin, narrow.qmax)
        ctx.save_for_backward(x, scale, (first == clipped) & (second == codes), codes)
        ctx.weight = weight
        return codes * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, scale, inside, codes = ctx.saved_tensors
        grad_x = grad * inside
        grad_scale = None
        if ctx.needs_input_grad[1]:
            terms = codes * grad - x * torch.reciprocal(scale) * grad_x
            grad_scale = terms.sum_to_size(scale.shape) * ctx.weight
        return grad_x, grad_scale, None, None, None


@QUANTIZERS.register("shared_pow2")
class SharedPow2Quantizer(FakeQuantizer):
    """Weights of one granularity share the scale of their highest width; activations share
    nothing."""

    def owner(self, scheme: QuantScheme) -> QuantScheme:
        if self.is_activation:
            return scheme
        if scheme.symmetry is Symmetry.ASYMMETRIC:
            raise SupernetConfigError(
                f"quantiser shared_pow2: {scheme.key!r} has a zero point, which is no multiple of "
                "a narrower step; allowed: symmetric weights, or the quantiser per_form"
            )
        alike = (s for s in self.schemes if replace(s, bits=scheme.bits) == scheme)
        return max(alike, key=lambda s: s.bits)

    def parameters_for(self, x: Tensor, scheme: QuantScheme) -> tuple[Tensor, Tensor]:
        """As of every quantiser: the scale is that of the scheme's own integers."""
        scale, zero_point = super().parameters_for(x, scheme)
        return scale * 2.0 ** self._shift(scheme), zero_point

    def forward(self, x: Tensor, scheme: QuantScheme) -> Tensor:
        if not self._shift(scheme):
            return super().forward(x, scheme)
        scale, _ = self.parameters_for(x, scheme)
        out: Tensor = _DoubleRounding.apply(  # type: ignore[no-untyped-call]
            x, scale, self._owner(scheme).scheme, scheme, self.gradient_scale(x, scheme)
        )
        return out

    @torch.no_grad()
    def calibrate(self, x: Tensor, scheme: QuantScheme) -> None:
        """Set the shared scale from the highest width; for a narrower one, nothing."""
        if not self._shift(scheme):
            super().calibrate(x, scheme)

    @torch.no_grad()
    def export_int(self, x: Tensor, scheme: QuantScheme) -> IntegerTensor:
        shift = self._shift(scheme)
        if not shift:
            return super().export_int(x, scheme)
        wide = super().export_int(x, self._owner(scheme).scheme)
        codes = narrow_codes(wide.codes, shift, scheme)
        return IntegerTensor(codes, wide.scale * 2.0**shift, wide.zero_point)

    def _shift(self, scheme: QuantScheme) -> int:
        """Bits between the shared scale and the scheme's."""
        return self._owner(scheme).scheme.bits - scheme.bits


def narrow_codes(codes: Tensor, shift: int, scheme: QuantScheme) -> Tensor:
    """The integers of a narrower width from stored ones, as a device computes them.

    Args:
        codes: int8 of any shape, of a symmetric scheme of `shift` more bits.
        shift: Bits to drop, at least 1.
        scheme: The narrower scheme.

    Returns:
        int8, the shape of `codes`: (codes + 2**(shift - 1)) >> shift, clipped.
    """
    rounded = (codes.to(torch.int16) + (1 << (shift - 1))) >> shift
    return rounded.clamp(scheme.qmin, scheme.qmax).to(code_dtype(scheme))
