"""FakeQuantizer: the learned quantisation of one tensor, under any of several schemes.

Schemes may share parameters; each kind of quantiser says by `owner` which do. Offsets are learned
as real numbers and rounded wherever they are used, so that an export has integer zero points.
Scales are stored as logarithms, which keeps them positive and makes the relative step of an
adaptive optimiser independent of their size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from spaces.quant_scheme import Granularity, QuantScheme, Symmetry
from spaces.registry import Registry
from supernet.errors import SupernetConfigError
from supernet.quantizers.calibration import calibrated
from supernet.quantizers.learned_step import fake_quantize


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


class _Owner(NamedTuple):
    """A scheme that has parameters, and their name."""

    scheme: QuantScheme
    name: str


class FakeQuantizer(nn.Module, ABC):
    """Learned quantisation of one tensor; `forward(x, scheme)` uses the parameters of a scheme.

    A tensor may be narrower than `shape`: scales of the leading channels and groups are used, as
    views, so that one store serves every width of an elastic layer.

    Parameters lie in `log_scale` and `zero_point` under the names of the owning schemes; symmetric
    schemes have no zero point.

    Args:
        schemes: Every scheme that this tensor may have.
        shape: Shape of the largest weight [O, I, ...], or None for an activation [N, ...].

    Raises:
        SupernetConfigError: An activation scheme that is not per tensor, or a scheme that this
            kind of quantiser cannot have.
    """

    def __init__(self, schemes: Iterable[QuantScheme], shape: tuple[int, ...] | None) -> None:
        super().__init__()
        self.schemes = tuple(sorted(set(schemes), key=lambda scheme: scheme.key))
        self.shape = shape
        self.is_activation = shape is None
        self.log_scale = nn.ParameterDict()
        self.zero_point = nn.ParameterDict()
        self._owners: dict[QuantScheme, _Owner] = {}
        for scheme in self.schemes:
            owner = self.owner(scheme)
            # Parameter names may not contain dots.
            name = owner.key.replace(".", "_")
            self._owners[scheme] = _Owner(owner, name)
            if name in self.log_scale:
                continue
            size = _scale_shape(owner, shape)
            self.log_scale[name] = nn.Parameter(torch.full(size, -3.0))
            if owner.symmetry is Symmetry.ASYMMETRIC:
                middle = (owner.qmin + owner.qmax + 1) / 2
                self.zero_point[name] = nn.Parameter(torch.full(size, middle))

    @abstractmethod
    def owner(self, scheme: QuantScheme) -> QuantScheme:
        """The scheme under whose name, and in whose granularity, the parameters of one of
        `self.schemes` lie.

        Raises:
            SupernetConfigError: This kind of quantiser cannot have the scheme.
        """

    def parameters_for(self, x: Tensor, scheme: QuantScheme) -> tuple[Tensor, Tensor]:
        """Scale and zero point (not yet rounded) of `x` under `scheme`, broadcastable to `x`.

        Raises:
            SupernetConfigError: The quantiser was not built for `scheme`.
        """
        owner, name = self._owner(scheme)
        scale = _broadcast(torch.exp(self.log_scale[name]), x, owner)
        if scheme.symmetry is Symmetry.SYMMETRIC:
            return scale, scale.new_zeros(())
        return scale, _broadcast(self.zero_point[name], x, owner)

    def forward(self, x: Tensor, scheme: QuantScheme) -> Tensor:
        """The fake-quantised `x`, of its shape."""
        scale, zero_point = self.parameters_for(x, scheme)
        return fake_quantize(x, scale, zero_point, scheme, self.gradient_scale(x, scheme))

    def gradient_scale(self, x: Tensor, scheme: QuantScheme) -> float:
        """What the gradients of a scale are weighted by, 1 / sqrt(qmax * N): N are the elements of
        one sample that share it (Esser et al. 2020), so that the batch does not change it."""
        samples = x.shape[0] if self.is_activation else 1
        scales = self.log_scale[self._owner(scheme).name].numel()
        shared = max(1, x.numel() // (scales * samples))
        return float((scheme.qmax * shared) ** -0.5)

    @torch.no_grad()
    def calibrate(self, x: Tensor, scheme: QuantScheme) -> None:
        """Set scale and zero point for values like `x` (of the full shape for a weight)."""
        owner, name = self._owner(scheme)
        scale, zero_point = calibrated(_rows(x, owner), scheme)
        self.log_scale[name].copy_(scale.log().view_as(self.log_scale[name]))
        if name in self.zero_point:
            self.zero_point[name].copy_(zero_point.view_as(self.zero_point[name]))

    @torch.no_grad()
    def export_int(self, x: Tensor, scheme: QuantScheme) -> IntegerTensor:
        """The integers of `x`; dequantising them equals `forward(x, scheme)` bit for bit."""
        scale, zero_point = self.parameters_for(x, scheme)
        zero = torch.round(zero_point).clamp(scheme.qmin, scheme.qmax)
        codes = torch.round(x * torch.reciprocal(scale)) + zero
        codes = codes.clamp(scheme.qmin, scheme.qmax)
        return IntegerTensor(codes.to(code_dtype(scheme)), scale.clone(), zero.to(torch.int32))

    def _owner(self, scheme: QuantScheme) -> _Owner:
        try:
            return self._owners[scheme]
        except KeyError:
            names = ", ".join(s.key for s in self.schemes) or "none"
            raise SupernetConfigError(
                f"no quantiser for scheme {scheme.key!r}; known: {names}"
            ) from None


QUANTIZERS: Registry[type[FakeQuantizer]] = Registry("quantiser", "netcarve.quantizers")


def code_dtype(scheme: QuantScheme) -> torch.dtype:
    """Of the integers of a tensor: int8 or uint8."""
    return torch.int8 if scheme.signed else torch.uint8


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
