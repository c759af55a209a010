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
    """The schemes of a layer's weight and of its input activation; None is float32."""

    weight: QuantScheme | None = None
    activation: QuantScheme | None = None

    @property
    def name(self) -> str:
        """`fp32`, or for example `w8a8`; `w32a8` is a float32 weight on a quantised input."""
        if self.weight is None and self.activation is None:
            return "fp32"
        weight = self.weight.bits if self.weight else FLOAT_BITS
        activation = self.activation.bits if self.activation else FLOAT_BITS
        return f"w{weight}a{activation}"

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


S8_WEIGHT = QuantScheme(8, Granularity.PER_CHANNEL, Symmetry.SYMMETRIC, signed=True)
U8_ACTIVATION = QuantScheme(8, Granularity.PER_TENSOR, Symmetry.ASYMMETRIC, signed=False)

FP32 = LayerPrecision()
W8A8 = LayerPrecision(S8_WEIGHT, U8_ACTIVATION)

PRECISIONS: Mapping[str, LayerPrecision] = MappingProxyType({p.name: p for p in (FP32, W8A8)})


def precision(name: str) -> LayerPrecision:
    """The precision called `name`.

    Raises:
        UnknownNameError: No precision has this name; the message lists those that exist.
    """
    try:
        return PRECISIONS[name]
    except KeyError:
        raise UnknownNameError("quantisation scheme", name, PRECISIONS) from None


def bits_of(name: str) -> int:
    """The weight bits that stand for the precision `name` in a search space; 32 is float32."""
    weight = precision(name).weight
    return weight.bits if weight else FLOAT_BITS


def site_precision(values: Mapping[str, int | str], site: str) -> LayerPrecision:
    """The precision that a config's values give to the layer at `site`.

    Reads `{site}.w_bits` and `{site}.a_bits`; a missing weight dimension means float32, a missing
    activation dimension follows the weight.
    """
    weight = int(values.get(f"{site}.w_bits", FLOAT_BITS))
    activation = int(values.get(f"{site}.a_bits", weight))
    return precision("fp32" if weight == activation == FLOAT_BITS else f"w{weight}a{activation}")
