"""Inputs of networks that predict accuracy: codes and whole-network quantities on one scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from predictors.accuracy.encoding import ConfigEncoding, Part, rounding_noise
from predictors.base import FloatArray
from spaces.cost import layer_cost
from spaces.layer_spec import LayerSpec
from spaces.population import sample
from spaces.quant_scheme import QuantScheme
from spaces.space import Population, SearchSpace

# Random configs from which the scale is taken.
_SCALE_CONFIGS = 256
# A column that varies less than this is a constant.
_CONSTANT = 1e-9

_Read = Callable[[Population], FloatArray]


class NetworkInputs:
    """Some parts of a config as a row of numbers, for a network that has few samples.

    Form and architecture are a block of one-hot codes each. Bits are a block of rounding noises,
    one of a tensor: what a bit is worth need not be learnt for every tensor anew, as it must be
    from codes. With the architecture come logarithms of MACs, parameters and layers, with the bits
    the mean relative steps of weights and of inputs (2 to the power of 1 - bits, 0 of float32),
    from which a network learns earlier still. A block is centred, and scaled so that it varies over
    random configs with a total variance of 1: three genes of the form weigh as much as the bits of
    all layers. Centre and scale depend on the space alone.

    Args:
        space: Whose configs.
        parts: Which parts.

    Attributes:
        columns: The part to which each column belongs.
        blocks: Number of blocks that vary: the mean squared length of a row.
    """

    def __init__(self, space: SearchSpace, parts: Sequence[Part]) -> None:
        drawn = sample(space, _SCALE_CONFIGS, np.random.default_rng(0))
        self._blocks: list[tuple[_Read, FloatArray, FloatArray]] = []
        self.columns: list[Part] = []
        for part in parts:
            choices = _choices(space, part)
            values = choices(drawn)
            total = np.sqrt(values.var(axis=0).sum())
            self._add(part, choices, values, np.full(values.shape[1], total))
            quantities = _QUANTITIES.get(part)
            if quantities is not None:
                read = partial(quantities, space)
                values = read(drawn)
                spread = values.std(axis=0)
                varying = np.count_nonzero(spread > _CONSTANT)
                self._add(part, read, values, spread * np.sqrt(varying))
        self.blocks = sum(bool(scale.any()) for _, _, scale in self._blocks)

    def _add(self, part: Part, read: _Read, values: FloatArray, spread: FloatArray) -> None:
        varies = spread > _CONSTANT
        scale = np.where(varies, 1.0 / np.where(varies, spread, 1.0), 0.0)
        self._blocks.append((read, values.mean(axis=0), scale))
        self.columns += [part] * values.shape[1]

    def __call__(self, population: Population) -> FloatArray:
        """Inputs float64 (n, columns) of a population int16 (n, d)."""
        parts = [(read(population) - centre) * scale for read, centre, scale in self._blocks]
        return np.concatenate([np.zeros((len(population), 0)), *parts], axis=1)


def _choices(space: SearchSpace, part: Part) -> _Read:
    """What reads the genes of a part."""
    return partial(rounding_noise, space) if part is Part.BITS else ConfigEncoding(space, (part,))


def _architecture(space: SearchSpace, population: Population) -> FloatArray:
    """Natural logarithms (n, 3) of MACs, parameters and layers."""
    sums = space.slot_features(population, _slot_sums).sum(axis=1)
    logarithms: FloatArray = np.log(np.maximum(sums[:, :3], 1.0))
    return logarithms


def _steps(space: SearchSpace, population: Population) -> FloatArray:
    """Mean relative steps (n, 2) of weights and of inputs, over the layers with weights."""
    sums = space.slot_features(population, _slot_sums).sum(axis=1)
    means: FloatArray = sums[:, 3:] / np.maximum(sums[:, 2:3], 1.0)
    return means


_QUANTITIES: dict[Part, Callable[[SearchSpace, Population], FloatArray]] = {
    Part.ARCHITECTURE: _architecture,
    Part.BITS: _steps,
}


def _slot_sums(layers: tuple[LayerSpec, ...]) -> FloatArray:
    """MACs, parameters, layers with weights, and their summed steps of weights and inputs (5,)."""
    row = np.zeros(5)
    for layer in layers:
        cost = layer_cost(layer)
        has_weight = layer.weight_shape != (0,)
        steps = (_step(layer.precision.weight), _step(layer.precision.activation))
        row += (cost.macs, cost.params, has_weight, *(has_weight * step for step in steps))
    return row


def _step(scheme: QuantScheme | None) -> float:
    """The step of a tensor whose values span -1 to 1."""
    return 0.0 if scheme is None else 2.0 ** (1 - scheme.bits)
