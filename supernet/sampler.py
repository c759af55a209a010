"""ConfigSampler: which configs a training step uses, and in which role."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from spaces.config import Config
from spaces.dimension import DimensionKind
from spaces.population import sample
from spaces.space import SearchSpace
from supernet.errors import CheckpointError


class Role(StrEnum):
    """What a config is in its step: the teacher, one of those in between, the smallest."""

    MAX = "max"
    RANDOM = "random"
    MIN = "min"


@dataclass(frozen=True, slots=True)
class Draw:
    """A config and its role."""

    config: Config
    role: Role


class ConfigSampler(ABC):
    """Draws the configs of a step.

    The trainer calls `sample` once a step, in any process: the answer depends on the seed and the
    step alone, so it is the same on every worker and after a resume. The first draw is the
    teacher of the others.
    """

    @abstractmethod
    def sample(self, step: int) -> list[Draw]:
        """The configs of step `step`, in the order of training."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Check or restore what `state` returned.

        Raises:
            CheckpointError: The state belongs to another sampler.
        """


class SandwichSampler(ConfigSampler):
    """The sandwich rule (Yu and Huang 2019): the largest, `count` random ones, the smallest.

    All configs of a step have the step's random resolution (Cai et al. 2020), so that the teacher
    sees what its pupils see. Precisions are drawn like every other dimension.

    Args:
        space: Where to draw.
        count: Random configs a step.
        seed: Decides everything together with the step.
    """

    def __init__(self, space: SearchSpace, count: int, seed: int) -> None:
        self.space, self.count, self.seed = space, count, seed
        kinds = [d.kind for d in space.dimensions]
        self._resolution = np.array([k is DimensionKind.RESOLUTION for k in kinds])

    def sample(self, step: int) -> list[Draw]:
        rng = np.random.default_rng((self.seed, step))
        rows = sample(self.space, self.count + 2, rng)
        rows[0], rows[-1] = self.space.cardinalities - 1, 0
        at = rng.integers(0, self.space.cardinalities)
        rows[:, self._resolution] = at[self._resolution]
        roles = [Role.MAX, *[Role.RANDOM] * self.count, Role.MIN]
        return [
            Draw(self.space.from_indices(row), role) for row, role in zip(rows, roles, strict=True)
        ]

    def state(self) -> dict[str, Any]:
        return {"space": self.space.key, "count": self.count, "seed": self.seed}

    def load_state(self, state: Mapping[str, Any]) -> None:
        if dict(state) != self.state():
            raise CheckpointError(f"the checkpoint's sampler {dict(state)} is not {self.state()}")
