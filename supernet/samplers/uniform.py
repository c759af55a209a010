"""Uniform sampling: what the other samplers are compared with."""

from __future__ import annotations

from typing import Literal

import numpy as np

from spaces.population import sample
from spaces.space import Population
from supernet.samplers.base import SAMPLERS, ConfigSampler, SamplerConfig
from supernet.samplers.draw import Role


class UniformConfig(SamplerConfig):
    """Settings of `uniform`."""

    name: Literal["uniform"] = "uniform"


@SAMPLERS.register("uniform")
class UniformSampler(ConfigSampler):
    """`count` configs, every dimension uniform over its choices."""

    settings_type = UniformConfig

    @classmethod
    def roles(cls, config: SamplerConfig) -> frozenset[Role]:
        return frozenset({Role.RANDOM})

    def rows(self, step: int, rng: np.random.Generator) -> tuple[Population, list[Role]]:
        rows = sample(self.space, self.count, rng)
        rows[:, self._resolution] = rows[0, self._resolution]
        return rows, [Role.RANDOM] * self.count
