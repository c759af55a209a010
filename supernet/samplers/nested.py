"""Nested subnets: one chain, in which each is a prefix of the next in every dimension.

SortedNet (Valipour et al. 2023) trains a few random members of the chain in each step, MatFormer
(Devvrit et al. 2024) all of them.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from spaces.population import sample
from spaces.space import Population
from supernet.samplers.base import SAMPLERS, ConfigSampler, SamplerConfig
from supernet.samplers.columns import PRECISION, UNORDERED, columns
from supernet.samplers.draw import Role


class NestedConfig(SamplerConfig):
    """Settings of `nested`.

    Attributes:
        subnets: Members of the chain, from the smallest to the largest config.
        all_in_step: Train all of them in every step, the largest first (MatFormer), instead of
            `random_configs` drawn uniformly, larger ones first (SortedNet).
    """

    name: Literal["nested"] = "nested"
    subnets: Annotated[int, Field(ge=2)] = 4
    all_in_step: bool = False


@SAMPLERS.register("nested")
class NestedSampler(ConfigSampler):
    """Members of the chain whose ordered dimensions all stand at the same share of their choices.

    Resolution is the step's, precisions are the bit sampler's, and dimensions without an order of
    size are random.
    """

    settings_type = NestedConfig
    config: NestedConfig

    @classmethod
    def roles(cls, config: SamplerConfig) -> frozenset[Role]:
        assert isinstance(config, NestedConfig)
        ends = frozenset({Role.MAX, Role.MIN})
        return ends if config.all_in_step else frozenset()

    def rows(self, step: int, rng: np.random.Generator) -> tuple[Population, list[Role]]:
        last = self.config.subnets - 1
        if self.config.all_in_step:
            members = np.arange(last, -1, -1)
        else:
            members = np.sort(rng.integers(0, last + 1, self.count))[::-1]
        rows = sample(self.space, len(members), rng)
        nested = ~columns(self.space, UNORDERED | PRECISION) & ~self._resolution
        share = members[:, None] / last * (self.space.cardinalities - 1)[None]  # [n, d]
        rows[:, nested] = np.floor(share + 0.5).astype(rows.dtype)[:, nested]
        rows[:, self._resolution] = rows[0, self._resolution]
        ends = {0: Role.MIN, last: Role.MAX}
        return rows, [ends.get(int(member), Role.RANDOM) for member in members]
