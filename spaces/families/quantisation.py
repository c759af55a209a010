"""Quantisation as a part of a family's settings and as dimensions of its space.

Either `schemes` are listed, of which the weight bits of every layer choose one; or the elastic
quantisation space of EQ-Net (Xu et al. 2023) is spanned: weight and activation bits per layer, and
granularity and symmetry for the whole network.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from spaces.dimension import Dimension, DimensionKind
from spaces.errors import ConfigError, UnknownNameError
from spaces.families.base import FamilySettings
from spaces.quant_scheme import (
    ACTIVATION_SYMMETRY,
    FLOAT_BITS,
    FORM_DIMENSIONS,
    WEIGHT_BITS,
    WEIGHT_GRANULARITY,
    WEIGHT_SYMMETRY,
    Granularity,
    Symmetry,
    bits_of,
    granularity_of,
)

FORM_READS = FORM_DIMENSIONS
"""What a slot with quantised layers reads besides their bits."""

_ELASTIC = ("w_bits", "a_bits", "granularity", "weight_symmetry", "activation_symmetry")


def _schemes(values: tuple[str, ...]) -> tuple[str, ...]:
    try:
        for value in values:
            bits_of(value)
    except UnknownNameError as error:
        raise ValueError(str(error)) from None
    return values


def _weight_bits(values: tuple[int, ...]) -> tuple[int, ...]:
    return _bits(values, (*WEIGHT_BITS, FLOAT_BITS))


def _activation_bits(values: tuple[int, ...]) -> tuple[int, ...]:
    return _bits(values, tuple(WEIGHT_BITS))


def _bits(values: tuple[int, ...], allowed: tuple[int, ...]) -> tuple[int, ...]:
    if wrong := sorted(set(values) - set(allowed)):
        raise ValueError(f"bits {wrong}; allowed: {', '.join(map(str, allowed))}")
    return tuple(sorted(set(values)))


def _granularities(values: tuple[str, ...]) -> tuple[str, ...]:
    """From the coarsest to the finest."""

    def fineness(name: str) -> tuple[int, int]:
        granularity, size = granularity_of(name)
        return list(Granularity).index(granularity), -(size or 0)

    try:
        return tuple(sorted(set(values), key=fineness))
    except ConfigError as error:
        raise ValueError(str(error)) from None


def _symmetries(values: tuple[Symmetry, ...]) -> tuple[Symmetry, ...]:
    return tuple(sorted(set(values), key=list(Symmetry).index))


class QuantSettings(FamilySettings):
    """Base of the settings of a family whose layers can be quantised.

    Attributes:
        schemes: Precisions of which a layer's weight bits choose one; not with `w_bits`.
        w_bits: Weight bits of every layer, 2 to 8, and 32 for float32.
        a_bits: Bits of every layer's input, 2 to 8; 8 without it. A float32 layer has none.
        granularity: Weights that share a scale: `per_tensor`, `per_channel`, or `per_group` with
            the number of inputs in a group, for example `per_group64`.
        weight_symmetry: `symmetric`, `asymmetric`.
        activation_symmetry: Likewise. Of the form, what is not given has its default and is no
            dimension: per-channel symmetric weights and asymmetric activations.
    """

    schemes: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_schemes)] = ("fp32",)
    w_bits: Annotated[tuple[int, ...], Field(min_length=1), AfterValidator(_weight_bits)] | None = (
        None
    )
    a_bits: (
        Annotated[tuple[int, ...], Field(min_length=1), AfterValidator(_activation_bits)] | None
    ) = None
    granularity: (
        Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_granularities)] | None
    ) = None
    weight_symmetry: (
        Annotated[tuple[Symmetry, ...], Field(min_length=1), AfterValidator(_symmetries)] | None
    ) = None
    activation_symmetry: (
        Annotated[tuple[Symmetry, ...], Field(min_length=1), AfterValidator(_symmetries)] | None
    ) = None

    @model_validator(mode="after")
    def _one_description(self) -> Self:
        given = [name for name in _ELASTIC if getattr(self, name) is not None]
        if given and self.w_bits is None:
            raise ValueError(f"{given[0]} needs w_bits: it belongs to layers with chosen bits")
        if given and "schemes" in self.model_fields_set:
            raise ValueError("schemes and w_bits exclude each other: both say which bits exist")
        return self

    @model_serializer(mode="wrap")
    def _as_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A space is known by its settings: those that it does without must not show in them.
        data: dict[str, Any] = handler(self)
        for name in ("schemes",) if self.w_bits is not None else _ELASTIC:
            del data[name]
        return {n: v for n, v in data.items() if v is not None or n not in _ELASTIC}


def layer_dimensions(settings: QuantSettings, site: str) -> tuple[Dimension, ...]:
    """The bits of one layer: `{site}.w_bits`, and where they are chosen `{site}.a_bits`."""
    bits = settings.w_bits or tuple(sorted({bits_of(scheme) for scheme in settings.schemes}))
    found = [Dimension(f"{site}.w_bits", DimensionKind.W_BITS, bits)]
    if settings.a_bits is not None:
        found.append(Dimension(f"{site}.a_bits", DimensionKind.A_BITS, settings.a_bits))
    return tuple(found)


def form_dimensions(settings: QuantSettings) -> tuple[Dimension, ...]:
    """The dimensions of `FORM_DIMENSIONS` that the settings give."""
    chosen = (
        (WEIGHT_GRANULARITY, DimensionKind.GRANULARITY, settings.granularity),
        (WEIGHT_SYMMETRY, DimensionKind.SYMMETRY, settings.weight_symmetry),
        (ACTIVATION_SYMMETRY, DimensionKind.SYMMETRY, settings.activation_symmetry),
    )
    return tuple(
        Dimension(name, kind, tuple(map(str, values)))
        for name, kind, values in chosen
        if values is not None
    )
