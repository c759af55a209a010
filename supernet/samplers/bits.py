"""BitSampler: the precisions of a step's configs, drawn beside their architectures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from spaces.dimension import DimensionKind
from spaces.registry import Registry
from spaces.space import Population, SearchSpace
from supernet.plugin import PluginConfig
from supernet.samplers.columns import BITS, columns
from supernet.samplers.draw import Role
from supernet.schedule import Horizon


class BitsConfig(PluginConfig):
    """Base of the settings of a bit sampler."""


class BitSampler(ABC):
    """Draws the bits of the configs of a step, in the dimensions of kind w_bits and a_bits.

    A config sampler asks it last. The teacher always has the most bits and the smallest config the
    fewest; granularity and symmetry, which have no order, stay as the config sampler drew them.
    Deterministic in (seed, step) and in what `set_traces` was told.

    Args:
        space: Where to draw.
        seed: Decides everything together with the step.
        config: Its settings.
        horizon: When the phase of sampled configs runs.
    """

    settings_type: ClassVar[type[BitsConfig]]

    def __init__(self, space: SearchSpace, seed: int, config: BitsConfig, horizon: Horizon) -> None:
        self.space, self.seed, self.config, self.horizon = space, seed, config, horizon
        self._bits = columns(space, BITS)

    def assign(self, step: int, rows: Population, roles: Sequence[Role]) -> Population:
        """`rows` (n, d) with the bits of step `step`; a new array."""
        rows = rows.copy()
        for row, role in zip(rows, roles, strict=True):
            if role is Role.MAX:
                row[self._bits] = (self.space.cardinalities - 1)[self._bits]
            elif role is Role.MIN:
                row[self._bits] = 0
        random = np.array([role is Role.RANDOM for role in roles])
        if random.any():
            rows[random] = self.draw(step, rows[random])
        return rows

    @abstractmethod
    def draw(self, step: int, rows: Population) -> Population:
        """The random configs `rows` (n, d) with the bits of step `step`."""

    def trace_probes(self, step: int) -> int:
        """With how many probes traces must be estimated and told before step `step` is drawn."""
        del step
        return 0

    def set_traces(self, step: int, traces: Mapping[str, float]) -> None:
        """Take the mean Hessian eigenvalue of every layer (site -> value), estimated at `step`."""
        del step, traces

    def memory(self) -> dict[str, Any]:
        """What it has been told, as JSON."""
        return {}

    def load_memory(self, memory: Mapping[str, Any]) -> None:
        """Restore what `memory` returned."""
        del memory


BIT_SAMPLERS: Registry[type[BitSampler]] = Registry("bit sampler", "netcarve.bit_samplers")


def union_of_bits(space: SearchSpace, kind: DimensionKind) -> list[int]:
    """All bits that some dimension of this kind can choose, ascending."""
    return sorted({int(c) for d in space.dimensions if d.kind is kind for c in d.choices})


class UniformBitsConfig(BitsConfig):
    """Settings of `uniform`: it has none."""

    name: Literal["uniform"] = "uniform"


@BIT_SAMPLERS.register("uniform")
class UniformBits(BitSampler):
    """Every layer's bits uniform over its choices, as the config sampler drew them."""

    settings_type = UniformBitsConfig

    def draw(self, step: int, rows: Population) -> Population:
        del step
        return rows
