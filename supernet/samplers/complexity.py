"""Complexity-aware sampling (ElasticViT, Tang et al. 2023): configs of one step are of one size.

Gradients of subnets of very different sizes point in different directions, so the level of
complexity walks lazily from step to step, all random configs of a step come from its level, and the
smallest config is one that they dominate. There is no largest config. What we changed: see
`supernet.samplers.levels`; besides, all configs of a step have one resolution.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator

from spaces.population import sample
from spaces.space import Population
from supernet.samplers.base import SAMPLERS, ConfigSampler, SamplerConfig
from supernet.samplers.columns import BITS, PRECISION, UNORDERED, Columns, columns
from supernet.samplers.complexity_measure import Measure
from supernet.samplers.draw import Role
from supernet.samplers.levels import build_levels, spread_levels

_WALK_STREAM, _TABLE_STREAM = 11, 12
_BLOCK = 1024

Complexity = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class LevelsConfig(SamplerConfig):
    """Settings of levels of complexity.

    Attributes:
        measure: `macs`, or `bit_operations`: these times the bits of both operands.
        levels: Lower ends of the levels, ascending, or how many to spread over the space, nearly
            equal in ratio; fewer where the space has too few configs.
        width: A level reaches from its lower end F to F (1 + width).
        smallest: Smallest configs, each for a range of levels.
        candidates: Configs from which the table of each range of levels is taken.
    """

    measure: Measure = Measure.MACS
    levels: Annotated[int, Field(ge=2)] | tuple[Complexity, ...] = 6
    width: Annotated[float, Field(gt=0, lt=1)] = 0.1
    smallest: Count = 3
    candidates: Annotated[int, Field(ge=256)] = 32768

    @field_validator("levels")
    @classmethod
    def _ascending(cls, levels: int | tuple[float, ...]) -> int | tuple[float, ...]:
        if isinstance(levels, tuple) and (len(levels) < 2 or list(levels) != sorted(set(levels))):
            raise ValueError(f"levels {list(levels)}; allowed: at least 2, ascending, or a number")
        return levels


class ComplexityConfig(LevelsConfig):
    """Settings of `complexity`."""

    name: Literal["complexity"] = "complexity"


class LevelSampler(ConfigSampler):
    """`count` random configs of the step's level and the smallest one of its range."""

    config: LevelsConfig

    def prepare(self) -> None:
        super().prepare()
        space, own = self.space, self.config
        wanted, exact = own.levels, True
        if isinstance(wanted, int):
            wanted, exact = tuple(spread_levels(space, own.measure, wanted)), False
        table_seed = (self.seed << 8) + _TABLE_STREAM
        self.levels = build_levels(
            space, own.measure, wanted, own.width, own.smallest, own.candidates, table_seed, exact
        )
        self._walk: list[int] = []
        self._precision = columns(space, PRECISION)

    @classmethod
    def roles(cls, config: SamplerConfig) -> frozenset[Role]:
        return frozenset({Role.RANDOM, Role.MIN})

    def level(self, step: int) -> int:
        """Number of the step's level: a lazy random walk from the run's first step on.

        It stays, rises or falls by one with equal probability; at an end, what would leave it
        stays instead, so that all levels are visited equally often.
        """
        while len(self._walk) <= step:
            block = len(self._walk) // _BLOCK
            rng = np.random.default_rng((self.seed, _WALK_STREAM, block))
            at = self._walk[-1] if self._walk else int(rng.integers(len(self.levels)))
            for move in rng.integers(-1, 2, _BLOCK):
                at = min(max(at + int(move), 0), len(self.levels) - 1)
                self._walk.append(at)
        return self._walk[step]

    def rows(self, step: int, rng: np.random.Generator) -> tuple[Population, list[Role]]:
        level = self.levels[self.level(step)]
        random = self.random_rows(step, rng)
        smallest = level.smallest.copy()
        smallest[self._resolution] = random[0, self._resolution]
        unordered = columns(self.space, UNORDERED)
        smallest[unordered] = sample(self.space, 1, rng)[0, unordered]
        if self.config.measure is Measure.MACS:
            smallest[columns(self.space, BITS)] = 0
        return np.stack([*random, smallest]), [*[Role.RANDOM] * len(random), Role.MIN]

    def random_rows(self, step: int, rng: np.random.Generator) -> Population:
        """The step's random configs (count, d), of one resolution."""
        table = self.levels[self.level(step)].rows
        table = self.at_one_resolution(table, table[rng.integers(len(table))])
        return self.with_new_precisions(table[rng.integers(0, len(table), self.count)], rng)

    # -- for subclasses -------------------------------------------------------------------------

    def at_one_resolution(self, rows: Population, like: Population) -> Population:
        """Those of `rows` (n, d) with the resolution of the row `like` (d,)."""
        same: Columns = (rows == like)[:, self._resolution].all(1)
        return rows[same]

    def with_new_precisions(self, rows: Population, rng: np.random.Generator) -> Population:
        """`rows` (n, d); where complexity does not count bits, with precisions drawn afresh."""
        if self.config.measure is not Measure.MACS:
            return rows
        drawn = rng.integers(0, self.space.cardinalities, rows.shape)
        return np.where(self._precision, drawn, rows).astype(rows.dtype)


@SAMPLERS.register("complexity")
class ComplexitySampler(LevelSampler):
    """Random configs from the table of the step's level, each equally likely."""

    settings_type = ComplexityConfig
    config: ComplexityConfig

    @classmethod
    def owns_bits(cls, config: SamplerConfig) -> bool:
        assert isinstance(config, ComplexityConfig)
        return config.measure is Measure.BIT_OPERATIONS
