"""Conformance tests of families, for the tests of plug-ins to inherit."""

from __future__ import annotations

from supernet.testing.conformance import FamilyConformance
from supernet.testing.geometry import (
    check_choices,
    check_dimensions,
    check_layers,
    check_slots,
    in_float,
    random_configs,
)
from supernet.testing.modules import (
    check_channel_groups,
    check_cost,
    check_export,
    check_extraction,
    check_integers,
    check_views,
    sample_images,
    sample_supernet,
)

__all__ = [
    "FamilyConformance",
    "check_channel_groups",
    "check_choices",
    "check_cost",
    "check_dimensions",
    "check_export",
    "check_extraction",
    "check_integers",
    "check_layers",
    "check_slots",
    "check_views",
    "in_float",
    "random_configs",
    "sample_images",
    "sample_supernet",
]
