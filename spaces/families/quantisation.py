"""Quantisation as a part of a family's settings and as dimensions of its space."""

from __future__ import annotations

from spaces.dimension import Dimension, DimensionKind
from spaces.families.base import FamilySettings
from spaces.families.mobilenetv3 import Schemes
from spaces.quant_scheme import bits_of

FORM_READS: tuple[str, ...] = ()
"""What a slot with quantised layers reads besides their bits."""


class QuantSettings(FamilySettings):
    """Base of the settings of a family whose layers can be quantised.

    Attributes:
        schemes: Precisions of which a layer's weight bits choose one.
    """

    schemes: Schemes = ("fp32",)


def layer_dimensions(settings: QuantSettings, site: str) -> tuple[Dimension, ...]:
    """The bits of one layer: `{site}.w_bits`."""
    bits = tuple(sorted({bits_of(scheme) for scheme in settings.schemes}))
    return (Dimension(f"{site}.w_bits", DimensionKind.W_BITS, bits),)


def form_dimensions(settings: QuantSettings) -> tuple[Dimension, ...]:
    """The dimensions of the form that the settings give."""
    del settings
    return ()
