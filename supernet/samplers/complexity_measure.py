"""Complexity of whole populations, exact, from the space's own LayerSpecs."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from spaces.cost import bit_operations, layer_cost
from spaces.layer_spec import LayerSpec
from spaces.space import Population, SearchSpace
from supernet.samplers.columns import PRECISION, columns


class Measure(StrEnum):
    """What complexity counts."""

    MACS = "macs"
    BIT_OPERATIONS = "bit_operations"


def _macs(specs: tuple[LayerSpec, ...]) -> NDArray[np.float64]:
    return np.array([float(sum(layer_cost(spec).macs for spec in specs))])


def _bit_operations(specs: tuple[LayerSpec, ...]) -> NDArray[np.float64]:
    return np.array([float(sum(bit_operations(spec) for spec in specs))])


def complexity(space: SearchSpace, population: Population, measure: Measure) -> NDArray[np.float64]:
    """float64 (n,): multiply-accumulates, or these times the bits of their operands."""
    if measure is Measure.BIT_OPERATIONS:
        return space.slot_features(population, _bit_operations).sum((1, 2))
    # Bits change no multiply-accumulate: without them far fewer distinct blocks are counted.
    plain = population.copy()
    plain[:, columns(space, PRECISION)] = 0
    return space.slot_features(plain, _macs).sum((1, 2))
