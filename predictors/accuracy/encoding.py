"""What networks that predict accuracy read of a config."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from predictors.base import FloatArray
from spaces.dimension import DimensionKind
from spaces.population import one_hot
from spaces.quant_scheme import FLOAT_BITS
from spaces.space import Population, SearchSpace


class Part(StrEnum):
    """A part of a config: what one dimension belongs to follows from its kind."""

    FORM = "form"
    BITS = "bits"
    ARCHITECTURE = "architecture"


QUANTISATION = (Part.FORM, Part.BITS)

_PARTS = {
    DimensionKind.GRANULARITY: Part.FORM,
    DimensionKind.SYMMETRY: Part.FORM,
    DimensionKind.W_BITS: Part.BITS,
    DimensionKind.A_BITS: Part.BITS,
}


def part_of(kind: DimensionKind) -> Part:
    """The part to which dimensions of a kind belong."""
    return _PARTS.get(kind, Part.ARCHITECTURE)


class ConfigEncoding:
    """One-hot codes of some parts of the configs of a space (EQ-Net, Xu et al. 2023).

    EQ-Net encodes the form (granularity and symmetries) and every layer's bits; the architecture
    is added in the same way. Nothing stands for what a subnet does not have: inactive genes and the
    bits of a float32 layer are all zeros.

    Args:
        space: Whose configs.
        parts: Which parts.

    Attributes:
        names: `DIMENSION=CHOICE` of every column.
    """

    def __init__(self, space: SearchSpace, parts: Sequence[Part]) -> None:
        self.space = space
        columns = [(d.name, part_of(d.kind), c) for d in space.dimensions for c in d.choices]
        counted = [part is not Part.BITS or choice != FLOAT_BITS for _, part, choice in columns]
        self._kept = _mask([part in parts for _, part, _ in columns]) & _mask(counted)
        named = zip(columns, self._kept, strict=True)
        self.names = tuple(f"{name}={choice}" for (name, _, choice), kept in named if kept)

    def __call__(self, population: Population) -> FloatArray:
        """Codes float64 (n, c), each 0 or 1, of a population int16 (n, d)."""
        return one_hot(self.space, population)[:, self._kept].astype(np.float64)


def rounding_noise(space: SearchSpace, population: Population) -> FloatArray:
    """Power of the rounding error of every tensor with elastic bits, as that of two levels is 1.

    The error of rounding has a variance of a twelfth of the squared step, and a step is halved by
    every bit.

    Args:
        population: int16 (n, d).

    Returns:
        float64 (n, genes of bits) of 4 to the power of 1 - bits; 0 where nothing is rounded:
        inactive genes, and float32 layers.
    """
    codes = one_hot(space, population)
    ends = np.cumsum(space.cardinalities)
    noise = [
        codes[:, end - len(d.choices) : end] @ np.array([[_noise(float(c))] for c in d.choices])
        for d, end in zip(space.dimensions, ends, strict=True)
        if part_of(d.kind) is Part.BITS
    ]
    return np.concatenate([np.zeros((len(population), 0)), *noise], axis=1)


def is_float32(space: SearchSpace, population: Population) -> NDArray[np.bool_]:
    """Which configs (n,) have no quantised layer."""
    bits = ConfigEncoding(space, (Part.BITS,))(population).sum(axis=1)
    return _mask(bits == 0)


def without_quantisation(space: SearchSpace, population: Population) -> Population:
    """A copy (n, d) in which form and bits are at their first choice: the architectures."""
    parts = np.array([part_of(d.kind) in QUANTISATION for d in space.dimensions])
    return np.where(parts, 0, population).astype(np.int16)


def _noise(bits: float) -> float:
    return 0.0 if bits == FLOAT_BITS else 4.0 ** (1.0 - bits)


def _mask(values: ArrayLike) -> NDArray[np.bool_]:
    return np.array(values, dtype=np.bool_)
