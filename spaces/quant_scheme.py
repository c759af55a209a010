"""How tensors are quantised: the scheme of one tensor and the precision of one layer.

A precision is bits and form. Bits are chosen per layer; the form (granularity and symmetry of
weights, symmetry of activations) is one for a whole config, as in EQ-Net (Xu et al. 2023), whose
space also has weights with one scale per group of inputs here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
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
        if self.group_size is not None and self.group_size < 1:
            raise ConfigError(f"group_size {self.group_size}; allowed: 1 or more inputs")

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
    def granularity_name(self) -> str:
        """`per_tensor`, `per_channel`, or with its size for example `per_group64`."""
        return f"{self.granularity}{self.group_size or ''}"

    @property
    def key(self) -> str:
        """A name unique among schemes, for example `s8.per_channel.symmetric`."""
        sign = "s" if self.signed else "u"
        return f"{sign}{self.bits}.{self.granularity_name}.{self.symmetry}"

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

    Raises:
        ConfigError: Unsigned weights, or an activation with more than one scale.
    """

    weight: QuantScheme | None = None
    activation: QuantScheme | None = None

    def __post_init__(self) -> None:
        if self.weight is not None and not self.weight.signed:
            raise ConfigError(f"weights in {self.weight.key}; allowed: signed schemes")
        scales = Granularity.PER_TENSOR if self.activation is None else self.activation.granularity
        if scales is not Granularity.PER_TENSOR:
            raise ConfigError(f"an activation with scales {scales}; allowed: per_tensor")

    @property
    def name(self) -> str:
        """`fp32`, `w8a8`, or for example `w4a32g64` for weights with one scale per 64 inputs;
        `w32a8` is a float32 weight on a quantised input.

        A form other than per-channel symmetric weights and asymmetric unsigned activations is
        added, for example `w4a4.tensor.w_asymmetric.a_symmetric`.
        """
        if self.weight is None and self.activation is None:
            return "fp32"
        weight = self.weight.bits if self.weight else FLOAT_BITS
        activation = self.activation.bits if self.activation else FLOAT_BITS
        group, form = "", []
        if self.weight is not None:
            group = f"g{self.weight.group_size}" if self.weight.group_size else ""
            if self.weight.granularity is Granularity.PER_TENSOR:
                form.append("tensor")
            if self.weight.symmetry is Symmetry.ASYMMETRIC:
                form.append("w_asymmetric")
        if self.activation is not None:
            form += _ACTIVATION_NAMES[self.activation.symmetry, self.activation.signed]
        return ".".join((f"w{weight}a{activation}{group}", *form))

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


_ACTIVATION_NAMES: Mapping[tuple[Symmetry, bool], tuple[str, ...]] = MappingProxyType(
    {
        (Symmetry.ASYMMETRIC, False): (),
        (Symmetry.ASYMMETRIC, True): ("a_signed",),
        (Symmetry.SYMMETRIC, False): ("a_symmetric_unsigned",),
        (Symmetry.SYMMETRIC, True): ("a_symmetric",),
    }
)

ACTIVATION_BITS = 8
"""Width of activations where it is not chosen."""

WEIGHT_BITS = range(2, 9)
"""Stored widths of the weights of integer layers."""

WEIGHT_ONLY_BITS = (4, 8)
GROUP_SIZES = (32, 64, 128)
"""Inputs that share one scale of a weight-only layer for which devices are probed."""

DEFAULT_GROUP_SIZE = 64

WEIGHT_GRANULARITY = "weight.granularity"
WEIGHT_SYMMETRY = "weight.symmetry"
ACTIVATION_SYMMETRY = "activation.symmetry"
FORM_DIMENSIONS = (WEIGHT_GRANULARITY, WEIGHT_SYMMETRY, ACTIVATION_SYMMETRY)
"""Names of the dimensions that choose the form of a whole config; a space may have any of them."""


def granularity_of(name: str) -> tuple[Granularity, int | None]:
    """The granularity and the group size that a choice such as `per_group64` means.

    Raises:
        ConfigError: It means none.
    """
    size = name.removeprefix(Granularity.PER_GROUP)
    if size != name and size.isdecimal() and int(size) > 0:
        return Granularity.PER_GROUP, int(size)
    if name in (Granularity.PER_TENSOR, Granularity.PER_CHANNEL):
        return Granularity(name), None
    raise ConfigError(
        f"granularity {name!r}; allowed: per_tensor, per_channel, and per_group with the number "
        "of inputs that share a scale, such as per_group64"
    )


# A space asks for the few schemes that it has many thousands of times.
@lru_cache(maxsize=1024)
def weight_scheme(
    bits: int,
    granularity: str = Granularity.PER_CHANNEL,
    symmetry: str = Symmetry.SYMMETRIC,
) -> QuantScheme:
    """Weights of an integer layer: kernels read 8 bits, whatever is stored.

    Args:
        bits: Stored width.
        granularity: `per_tensor`, `per_channel`, or for example `per_group64`.
        symmetry: `symmetric` or `asymmetric`.

    Raises:
        ConfigError: One of them is not allowed.
    """
    shared, size = granularity_of(granularity)
    return QuantScheme(bits, shared, _symmetry(symmetry), signed=True, group_size=size)


@lru_cache(maxsize=256)
def activation_scheme(
    bits: int = ACTIVATION_BITS, symmetry: str = Symmetry.ASYMMETRIC, nonnegative: bool = False
) -> QuantScheme:
    """The input of an integer layer: kernels read 8 bits, however few values occur.

    Args:
        bits: Width.
        symmetry: `asymmetric` is unsigned with a zero point, `symmetric` has none.
        nonnegative: Whether the input never is negative, so that symmetric integers are unsigned.

    Raises:
        ConfigError: One of them is not allowed.
    """
    chosen = _symmetry(symmetry)
    signed = chosen is Symmetry.SYMMETRIC and not nonnegative
    return QuantScheme(bits, Granularity.PER_TENSOR, chosen, signed)


def _symmetry(name: str) -> Symmetry:
    if name not in list(Symmetry):
        raise ConfigError(f"symmetry {name!r}; allowed: {', '.join(Symmetry)}")
    return Symmetry(name)


def _group_weight(bits: int, group_size: int) -> QuantScheme:
    """Weights of a weight-only layer, which kernels turn into float32."""
    return QuantScheme(
        bits, Granularity.PER_GROUP, Symmetry.SYMMETRIC, True, FLOAT_BITS, group_size
    )


S8_WEIGHT = weight_scheme(8)
U8_ACTIVATION = activation_scheme()

FP32 = LayerPrecision()
W8A8 = LayerPrecision(S8_WEIGHT, U8_ACTIVATION)
W4A8 = LayerPrecision(weight_scheme(4), U8_ACTIVATION)

PRECISIONS: Mapping[str, LayerPrecision] = MappingProxyType(
    {
        found.name: found
        for found in (
            FP32,
            *(LayerPrecision(weight_scheme(bits), U8_ACTIVATION) for bits in WEIGHT_BITS),
            *(
                LayerPrecision(_group_weight(bits, size))
                for bits in WEIGHT_ONLY_BITS
                for size in GROUP_SIZES
            ),
        )
    }
)
"""The precisions that devices are probed for, by name; others can be trained, stored and evaluated.
`w2a8` to `w8a8` execute in 8-bit integers, the weight-only `w4a32g32` to `w8a32g128` in float32."""


def precision(name: str) -> LayerPrecision:
    """The precision called `name`, one of `PRECISIONS`.

    Raises:
        UnknownNameError: None of them has this name; the message lists them.
    """
    try:
        return PRECISIONS[name]
    except KeyError:
        raise UnknownNameError("quantisation scheme", name, PRECISIONS) from None


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


def site_precision(
    values: Mapping[str, int | str], site: str, *, nonnegative: bool = False
) -> LayerPrecision:
    """The precision that a config's values give to the layer at `site`.

    Reads `{site}.w_bits`, `{site}.a_bits` and the form of the config (`FORM_DIMENSIONS`); for
    weights on a float32 input `{site}.granularity` (such as `per_group64`). A missing weight
    dimension means float32, a missing activation dimension follows the weight, and a form that is
    missing is per-channel symmetric weights and asymmetric activations. A layer whose weights are
    chosen to be float32 reads float32, whatever the bits of its input.

    Args:
        values: Dimension name -> value.
        site: The layer.
        nonnegative: Whether its input never is negative, see `activation_scheme`.

    Raises:
        UnknownNameError: A float32 operand meets a quantised one in a way that no layer has.
        ConfigError: Bits, a granularity or a symmetry that does not exist.
    """
    bits = int(values.get(f"{site}.w_bits", FLOAT_BITS))
    follows = FLOAT_BITS if bits == FLOAT_BITS else ACTIVATION_BITS
    input_bits = int(values.get(f"{site}.a_bits", follows))
    if bits == FLOAT_BITS and (f"{site}.w_bits" in values or input_bits == FLOAT_BITS):
        return FP32
    if bits == FLOAT_BITS:
        return precision(f"w{bits}a{input_bits}")
    if input_bits == FLOAT_BITS:
        default = f"{Granularity.PER_GROUP}{DEFAULT_GROUP_SIZE}"
        granularity = str(values.get(f"{site}.granularity", default))
        size = granularity.removeprefix(Granularity.PER_GROUP)
        return precision(f"w{bits}a{input_bits}g{size}")
    return LayerPrecision(
        weight_scheme(
            bits,
            str(values.get(WEIGHT_GRANULARITY, Granularity.PER_CHANNEL)),
            str(values.get(WEIGHT_SYMMETRY, Symmetry.SYMMETRIC)),
        ),
        activation_scheme(
            input_bits,
            str(values.get(ACTIVATION_SYMMETRY, Symmetry.ASYMMETRIC)),
            nonnegative,
        ),
    )
