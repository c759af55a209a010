"""How tensors are quantised: the scheme of one tensor and the precision of one layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from spaces.errors import ConfigError, UnknownNameError

FLOAT_BITS = 32


class Granularity(StrEnum):
    """Which elements of a tensor share one scale."""

    PER_TENSOR = "per_tensor"
    PER_CHANNEL = "per_channel"
    PER_GROUP = "per_group"


class Symmetry(StrEnum):
    """Whether the zero point is fixed at 0 (symmetric) or learned (asymmetric)."""

    SYMMETRIC = "symmetric"
    ASYMMETRIC = "asymmetric"


@dataclass(frozen=True, slots=True)
class QuantScheme:
    """The quantisation of one tensor.

    Attributes:
        bits: Stored width, 2 to 8 bits.
        granularity: Which elements share a scale; channels are axis 0 of a weight.
        symmetry: Whether a zero point exists.
        signed: Whether the integers are signed.
        executed_bits: Width in which a device computes with it, at least `bits`.
        group_size: Elements per scale along the input axis, for `PER_GROUP` only.
    """

    bits: int
    granularity: Granularity
    symmetry: Symmetry
    signed: bool
    executed_bits: int = 8
    group_size: int | None = None

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ConfigError(f"bits of a quantised tensor: {self.bits}; allowed: 2 to 8")
        if self.executed_bits < self.bits:
            raise ConfigError(
                f"executed_bits {self.executed_bits} is narrower than the stored {self.bits} bits"
            )
        if (self.group_size is not None) != (self.granularity is Granularity.PER_GROUP):
            raise ConfigError("group_size belongs to granularity per_group, and only to it")

    @property
    def qmin(self) -> int:
        """The smallest integer. A symmetric range is narrow (-127, not -128 at 8 bits), so that
        flipping the sign of the integers is exact."""
        if not self.signed:
            return 0
        narrow = 1 if self.symmetry is Symmetry.SYMMETRIC else 0
        return -(1 << (self.bits - 1)) + narrow

    @property
    def qmax(self) -> int:
        """The largest integer."""
        return (1 << (self.bits - int(self.signed))) - 1

    @property
    def key(self) -> str:
        """A name unique among schemes, for example `s8.per_channel.symmetric`."""
        group = f"{self.group_size}" if self.group_size else ""
        return f"{'s' if self.signed else 'u'}{self.bits}.{self.granularity}{group}.{self.symmetry}"

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` turns back into an equal scheme."""
        return {
            "bits": self.bits,
            "granularity": str(self.granularity),
            "symmetry": str(self.symmetry),
            "signed": self.signed,
            "executed_bits": self.executed_bits,
            "group_size": self.group_size,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> QuantScheme:
        """The scheme that `to_json` described."""
        return cls(
            bits=int(data["bits"]),
            granularity=Granularity(data["granularity"]),
            symmetry=Symmetry(data["symmetry"]),
            signed=bool(data["signed"]),
            executed_bits=int(data["executed_bits"]),
            group_size=data["group_size"],
        )


@dataclass(frozen=True, slots=True)
class LayerPrecision:
    """The schemes of a layer's weight and of its input activation; None is float32.

    Integer weights on a float32 input are weight-only quantisation: the layer computes in float32.
    """

    weight: QuantScheme | None = None
    activation: QuantScheme | None = None

    @property
    def name(self) -> str:
        """`fp32`, `w8a8`, or for example `w4a32g64` for weights with one scale per 64 inputs;
        `w32a8` is a float32 weight on a quantised input."""
        if self.weight is None and self.activation is None:
            return "fp32"
        weight = self.weight.bits if self.weight else FLOAT_BITS
        activation = self.activation.bits if self.activation else FLOAT_BITS
        group = f"g{self.weight.group_size}" if self.weight and self.weight.group_size else ""
        return f"w{weight}a{activation}{group}"

    @property
    def integer(self) -> bool:
        """Whether the layer computes in integers: both of its operands are quantised."""
        return self.weight is not None and self.activation is not None

    @property
    def weight_only(self) -> bool:
        """Whether integer weights meet a float32 input."""
        return self.weight is not None and self.activation is None

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` turns back into an equal precision."""
        return {
            "weight": self.weight.to_json() if self.weight else None,
            "activation": self.activation.to_json() if self.activation else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LayerPrecision:
        """The precision that `to_json` described."""
        weight, activation = data["weight"], data["activation"]
        return cls(
            QuantScheme.from_json(weight) if weight else None,
            QuantScheme.from_json(activation) if activation else None,
        )


ACTIVATION_BITS = 8
WEIGHT_BITS = range(2, 9)
"""Stored widths of the weights of integer layers."""

WEIGHT_ONLY_BITS = (4, 8)
GROUP_SIZES = (32, 64, 128)
"""Inputs that share one scale of a weight-only layer."""

DEFAULT_GROUP_SIZE = 64


def _channel_weight(bits: int) -> QuantScheme:
    """Weights of an integer layer: kernels read 8 bits, whatever is stored."""
    return QuantScheme(bits, Granularity.PER_CHANNEL, Symmetry.SYMMETRIC, signed=True)


def _group_weight(bits: int, group_size: int) -> QuantScheme:
    """Weights of a weight-only layer, which kernels turn into float32."""
    return QuantScheme(
        bits, Granularity.PER_GROUP, Symmetry.SYMMETRIC, True, FLOAT_BITS, group_size
    )


S8_WEIGHT = _channel_weight(8)
U8_ACTIVATION = QuantScheme(
    ACTIVATION_BITS, Granularity.PER_TENSOR, Symmetry.ASYMMETRIC, signed=False
)

FP32 = LayerPrecision()
W8A8 = LayerPrecision(S8_WEIGHT, U8_ACTIVATION)
W4A8 = LayerPrecision(_channel_weight(4), U8_ACTIVATION)

PRECISIONS: Mapping[str, LayerPrecision] = MappingProxyType(
    {
        found.name: found
        for found in (
            FP32,
            *(LayerPrecision(_channel_weight(bits), U8_ACTIVATION) for bits in WEIGHT_BITS),
            *(
                LayerPrecision(_group_weight(bits, size))
                for bits in WEIGHT_ONLY_BITS
                for size in GROUP_SIZES
            ),
        )
    }
)
"""Every precision by name. `w2a8` to `w8a8` execute in 8-bit integers, the weight-only
`w4a32g32` to `w8a32g128` in float32."""


def precision(name: str) -> LayerPrecision:
    """The precision called `name`.

    Raises:
        UnknownNameError: No precision has this name; the message lists those that exist.
    """
    try:
        return PRECISIONS[name]
    except KeyError:
        raise UnknownNameError("quantisation scheme", name, PRECISIONS) from None


def precision_of_bits(bits: int) -> LayerPrecision:
    """The precision of a layer whose weight bits alone are chosen: the activation follows.

    Raises:
        UnknownNameError: No precision has so many weight bits.
    """
    return precision("fp32" if bits == FLOAT_BITS else f"w{bits}a{ACTIVATION_BITS}")


def bits_of(name: str) -> int:
    """The weight bits that stand for the precision `name` in a search space; 32 is float32.

    Raises:
        UnknownNameError: There is no such precision, or weight bits alone do not choose it.
    """
    found = precision(name)
    if found.weight_only:
        known = [one for one, candidate in PRECISIONS.items() if not candidate.weight_only]
        raise UnknownNameError("quantisation scheme that weight bits choose", name, known)
    return found.weight.bits if found.weight else FLOAT_BITS


def site_precision(values: Mapping[str, int | str], site: str) -> LayerPrecision:
    """The precision that a config's values give to the layer at `site`.

    Reads `{site}.w_bits`, `{site}.a_bits` and, for weights on a float32 input,
    `{site}.granularity` (such as `per_group64`). A missing weight dimension means float32; a
    missing activation dimension follows the weight.

    Raises:
        UnknownNameError: No precision has these bits or this granularity.
    """
    weight = int(values.get(f"{site}.w_bits", FLOAT_BITS))
    if f"{site}.a_bits" not in values:
        return precision_of_bits(weight)
    activation = int(values[f"{site}.a_bits"])
    if weight == activation == FLOAT_BITS:
        return FP32
    if activation != FLOAT_BITS:
        return precision(f"w{weight}a{activation}")
    default = f"{Granularity.PER_GROUP}{DEFAULT_GROUP_SIZE}"
    granularity = str(values.get(f"{site}.granularity", default))
    return precision(f"w{weight}a{activation}g{granularity.removeprefix(Granularity.PER_GROUP)}")
