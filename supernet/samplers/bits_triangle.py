"""Average bits on a triangle wave.

Bits drawn layer by layer average to the middle in almost every config of many layers, so that
supernets rarely train configs of few bits. One QuantLLM for ALL (Yi et al. 2024) moves the average
along a triangle wave; EQ-Net (Xu et al. 2023) draws each layer's bits from their probabilities
given the bucket of the average, tabulated over random configs. What we changed: these configs have
biases of their own towards few or many bits, so that every bucket has some; weights and inputs
follow one wave, each with its own table.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from spaces.dimension import DimensionKind
from spaces.space import Population, SearchSpace
from supernet.samplers.bit_layers import BitDimension, bit_dimensions
from supernet.samplers.bits import BIT_SAMPLERS, BitSampler, BitsConfig
from supernet.schedule import Horizon

_STREAM = 21
_TABLE_DRAWS = 50_000
_BUCKETS = 25
_STEEPEST_BIAS = 24.0


class TriangleBitsConfig(BitsConfig):
    """Settings of `triangle`.

    Attributes:
        wave: Steps in which the average falls from the most bits to the fewest and rises again.
    """

    name: Literal["triangle"] = "triangle"
    wave: Annotated[int, Field(ge=2)] = 400


class BitTable:
    """P(bits of a layer | average bits), for the dimensions of one kind.

    Args:
        dimensions: Not empty; the average weighs them by their size.
        rng: Source of the configs that are tabulated.
    """

    def __init__(self, dimensions: list[BitDimension], rng: np.random.Generator) -> None:
        self.dimensions = dimensions
        sizes = np.array([max(d.size, 1.0) for d in dimensions])
        self._shares = sizes / sizes.sum()
        # The cube gives the middle and both ends of the averages their share of the draws.
        bias = _STEEPEST_BIAS * rng.uniform(-1, 1, _TABLE_DRAWS) ** 3
        drawn = [_biased(len(d.choices), bias, rng) for d in dimensions]
        bucket = self._bucket(self.average(np.stack(drawn, axis=1)))
        self._cumulative = []
        for dimension, index in zip(dimensions, drawn, strict=True):
            counts = np.zeros((_BUCKETS, len(dimension.choices)))
            np.add.at(counts, (bucket, index), 1.0)
            # A bucket between those that a few coarse choices can reach has no config.
            counts = _filled(counts)
            self._cumulative.append(np.cumsum(counts / counts.sum(1, keepdims=True), axis=1))

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest average."""
        least = sum(s * d.choices[0] for s, d in zip(self._shares, self.dimensions, strict=True))
        most = sum(s * d.choices[-1] for s, d in zip(self._shares, self.dimensions, strict=True))
        return float(least), float(most)

    def average(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Average bits float64 (n,) of choice indices (n, dimensions)."""
        bits = [np.array(d.choices)[indices[:, i]] for i, d in enumerate(self.dimensions)]
        found: NDArray[np.float64] = np.stack(bits, axis=1) @ self._shares
        return found

    def _bucket(self, average: NDArray[np.float64]) -> NDArray[np.int64]:
        low, high = self.range
        place = ((average - low) / (high - low) * _BUCKETS).astype(np.int64)
        return np.clip(place, 0, _BUCKETS - 1)

    def draw(self, average: float, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Choice indices (count, dimensions) of configs with about this average."""
        bucket = int(self._bucket(np.array([average]))[0])
        uniform = rng.random((count, len(self.dimensions)))
        columns = [
            np.minimum((uniform[:, i, None] >= table[bucket]).sum(1), table.shape[1] - 1)
            for i, table in enumerate(self._cumulative)
        ]
        return np.stack(columns, axis=1)


@BIT_SAMPLERS.register("triangle")
class TriangleBits(BitSampler):
    """The random configs of a step have the average bits of the wave."""

    settings_type = TriangleBitsConfig
    config: TriangleBitsConfig

    def __init__(self, space: SearchSpace, seed: int, config: BitsConfig, horizon: Horizon) -> None:
        super().__init__(space, seed, config, horizon)
        rng = np.random.default_rng((seed, _STREAM))
        kinds = (DimensionKind.W_BITS, DimensionKind.A_BITS)
        found = [bit_dimensions(space, kind) for kind in kinds]
        self.tables = [BitTable(dimensions, rng) for dimensions in found if dimensions]

    def height(self, step: int) -> float:
        """The wave, 1 at its crests and 0 in its troughs; a crest where the phase begins."""
        within = (step - self.horizon.first_step) % self.config.wave
        return abs(2 * within / self.config.wave - 1)

    def draw(self, step: int, rows: Population) -> Population:
        rng = np.random.default_rng((self.seed, _STREAM, step))
        rows = rows.copy()
        for table in self.tables:
            low, high = table.range
            average = low + (high - low) * self.height(step)
            drawn = table.draw(average, len(rows), rng)
            rows[:, [d.column for d in table.dimensions]] = drawn
        return rows


def _biased(choices: int, bias: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices (n,), each with probabilities proportional to exp(bias * index / (choices - 1))."""
    weights = np.exp(bias[:, None] * np.linspace(0, 1, choices))  # [n, choices]
    cumulative = np.cumsum(weights / weights.sum(1, keepdims=True), axis=1)
    uniform = rng.random(len(bias))
    return np.minimum((uniform[:, None] >= cumulative).sum(1), choices - 1)


def _filled(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """`counts` (buckets, choices), with rows of zeros replaced by the nearest other row."""
    present = np.flatnonzero(counts.sum(1) > 0)
    distance = np.abs(np.arange(len(counts))[:, None] - present[None])
    filled: NDArray[np.float64] = counts[present[distance.argmin(1)]]
    return filled
