"""Floor 1: what can be chosen, what a choice is made of, and what it costs."""

from __future__ import annotations

from spaces.capabilities import DeviceCapabilities
from spaces.config import Config
from spaces.cost import Cost, cost, layer_cost, tensor_layout
from spaces.dimension import Choice, Dimension, DimensionKind
from spaces.errors import (
    ConfigError,
    CorruptFileError,
    NetcarveError,
    SpaceError,
    UnknownNameError,
)
from spaces.layer_spec import Activation, LayerSpec, Operator
from spaces.presets import SPACES, get_space
from spaces.quant_scheme import (
    FP32,
    PRECISIONS,
    W4A8,
    W8A8,
    Granularity,
    LayerPrecision,
    QuantScheme,
    Symmetry,
    precision,
)
from spaces.space import Population, SearchSpace

__all__ = [
    "FP32",
    "PRECISIONS",
    "SPACES",
    "W4A8",
    "W8A8",
    "Activation",
    "Choice",
    "Config",
    "ConfigError",
    "CorruptFileError",
    "Cost",
    "DeviceCapabilities",
    "Dimension",
    "DimensionKind",
    "Granularity",
    "LayerPrecision",
    "LayerSpec",
    "NetcarveError",
    "Operator",
    "Population",
    "QuantScheme",
    "SearchSpace",
    "SpaceError",
    "Symmetry",
    "UnknownNameError",
    "cost",
    "get_space",
    "layer_cost",
    "precision",
    "tensor_layout",
]
