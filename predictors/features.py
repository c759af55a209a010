"""Cost features of subnets, read from their LayerSpecs.

Latency on one device is close to additive over layers, and a layer's share close to linear in a
few quantities (multiply-accumulates, bytes moved, one call) whose rates depend on the operator and
on whether it computes in integers. A feature is such a quantity summed over the layers of a group.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spaces.cost import layer_cost
from spaces.layer_spec import Activation, LayerSpec, Operator
from spaces.space import Population, SearchSpace

FloatArray = NDArray[np.float64]

TERMS = ("macs", "weight_bytes", "input_bytes", "output_values", "layers")
OPERATORS = ("conv", "pointwise", "depthwise", "squeeze_excite", "pool", "linear")
PRECISIONS = ("float", "integer")
EXTRAS = ("residual_values", "hardswish_values")

# Nominal time of one unit in ms, only to bring features of different units to one scale and to
# say that a depthwise multiply-accumulate is dearer than one of a matrix product.
_MS_PER_MAC = {"conv": 4e-8, "pointwise": 2e-8, "depthwise": 1e-7}
_MS_PER_UNIT = {"weight_bytes": 2e-8, "input_bytes": 5e-8, "output_values": 2e-7, "layers": 1e-3}


class Feature(NamedTuple):
    """What one column of `cost_features` counts."""

    term: str
    operator: str
    precision: str

    @property
    def nominal_ms(self) -> float:
        """Nominal time of one unit, in ms."""
        if self.term != "macs":
            return _MS_PER_UNIT.get(self.term, 2e-7)
        speedup = 2.5 if self.precision == "integer" else 1.0
        return _MS_PER_MAC.get(self.operator, 4e-8) / speedup


FEATURES: tuple[Feature, ...] = (
    *(Feature(t, o, p) for o in OPERATORS for p in PRECISIONS for t in TERMS),
    *(Feature(t, "elementwise", "float") for t in EXTRAS),
    # These are never quantised.
    *(Feature(t, o, "float") for o in ("attention", "layer_norm") for t in TERMS),
)
NOMINAL_MS: FloatArray = np.array([feature.nominal_ms for feature in FEATURES])
TOTALS = ("log_macs", "log_bytes", "log_layers", "integer_share")

_COLUMN = {feature: i for i, feature in enumerate(FEATURES)}
_MACS = np.array([f.term == "macs" for f in FEATURES])
_WEIGHTS = np.array([f.term == "weight_bytes" for f in FEATURES])
_LAYERS = np.array([f.term == "layers" for f in FEATURES])
_INTEGER = np.array([f.precision == "integer" for f in FEATURES])


def _operator(spec: LayerSpec) -> str:
    if spec.operator is Operator.CONV:
        return "pointwise" if spec.kernel == 1 else "conv"
    return {
        Operator.DEPTHWISE_CONV: "depthwise",
        Operator.SQUEEZE_EXCITE: "squeeze_excite",
        Operator.MAX_POOL: "pool",
        Operator.GLOBAL_POOL: "pool",
        Operator.LINEAR: "linear",
        Operator.ATTENTION: "attention",
        Operator.LAYER_NORM: "layer_norm",
    }[spec.operator]


def layer_features(specs: tuple[LayerSpec, ...]) -> FloatArray:
    """Features (f,) of some layers, summed; the columns are `FEATURES`."""
    row = np.zeros(len(FEATURES))
    for spec in specs:
        cost = layer_cost(spec)
        # Squeeze-and-excite reads the integers that its projection takes, and computes in floats.
        integer = spec.precision.integer
        element = 4 if spec.precision.activation is None else 1
        read = spec.in_size**2 * spec.in_channels * element
        written = spec.out_size**2 * spec.out_channels
        amounts = (cost.macs, cost.bytes, read, written, 1)
        precision = PRECISIONS[integer]
        operator = _operator(spec)
        for term, amount in zip(TERMS, amounts, strict=True):
            row[_COLUMN[Feature(term, operator, precision)]] += amount
        if spec.residual:
            row[_COLUMN[Feature("residual_values", "elementwise", "float")]] += written
        if spec.activation is Activation.HARDSWISH:
            row[_COLUMN[Feature("hardswish_values", "elementwise", "float")]] += written
    return row


def cost_features(space: SearchSpace, population: Population) -> FloatArray:
    """Cost features of every config.

    Args:
        space: The space of the population.
        population: int16 (n, d).

    Returns:
        float64 (n, f): MACs, bytes, values or layers, in the order of `FEATURES`.
    """
    total = np.empty((len(population), len(FEATURES)))
    # Blocks bound the (block, slots, f) temporary to some tens of megabytes.
    for start in range(0, len(population), 4096):
        block = population[start : start + 4096]
        # [block, slots, f] -> [block, f]
        total[start : start + 4096] = space.slot_features(block, layer_features).sum(axis=1)
    return total


def totals(features: FloatArray) -> FloatArray:
    """Whole-network quantities from cost features.

    Args:
        features: float64 (n, f) from `cost_features`.

    Returns:
        float64 (n, 4), the columns of `TOTALS`: natural logarithms of MACs, of bytes on disk and of
        the number of layers, and the share of MACs computed in integers.
    """
    macs = features[:, _MACS].sum(axis=1)
    integer = features[:, _MACS & _INTEGER].sum(axis=1)
    size = features[:, _WEIGHTS].sum(axis=1)
    layers = features[:, _LAYERS].sum(axis=1)
    return np.stack([np.log(macs), np.log(size), np.log(layers), integer / macs], axis=1)
