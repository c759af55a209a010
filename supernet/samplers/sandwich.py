"""The sandwich rule (Yu and Huang 2019): the largest, random ones, the smallest."""

from __future__ import annotations

from typing import Literal

import numpy as np

from spaces.population import sample
from spaces.space import Population
from supernet.samplers.base import SAMPLERS, ConfigSampler, SamplerConfig
from supernet.samplers.columns import UNORDERED, columns
from supernet.samplers.draw import Role


class SandwichConfig(SamplerConfig):
    """Settings of `sandwich`."""

    name: Literal["sandwich"] = "sandwich"


@SAMPLERS.register("sandwich")
class SandwichSampler(ConfigSampler):
    """The largest config, `count` random ones and the smallest, at the step's resolution.

    Dimensions without an order of size, such as the symmetry of quantisers, are random in all of
    them (EQ-Net, Xu et al. 2023).
    """

    settings_type = SandwichConfig

    @classmethod
    def roles(cls, config: SamplerConfig) -> frozenset[Role]:
        return frozenset(Role)

    def rows(self, step: int, rng: np.random.Generator) -> tuple[Population, list[Role]]:
        space = self.space
        rows = sample(space, self.count + 2, rng)
        ordered = ~columns(space, UNORDERED)
        rows[0, ordered], rows[-1, ordered] = (space.cardinalities - 1)[ordered], 0
        at = rng.integers(0, space.cardinalities)
        rows[:, self._resolution] = at[self._resolution]
        return rows, [Role.MAX, *[Role.RANDOM] * self.count, Role.MIN]
