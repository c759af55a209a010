"""ConfigSampler: which configs a training step uses, and in which role."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BeforeValidator, SerializeAsAny

from spaces.config import Config
from spaces.dimension import DimensionKind
from spaces.registry import Registry
from spaces.space import Population, SearchSpace
from supernet.errors import CheckpointError
from supernet.plugin import PluginConfig, read_options
from supernet.samplers.bits import BIT_SAMPLERS, BitsConfig, UniformBitsConfig
from supernet.samplers.columns import columns
from supernet.samplers.draw import Draw, Role
from supernet.schedule import Horizon


class SamplerConfig(PluginConfig):
    """Base of the settings of a config sampler.

    Attributes:
        bits: Who draws the bits of the layers: a name in `BIT_SAMPLERS`, with its settings.
    """

    bits: Annotated[SerializeAsAny[BitsConfig], BeforeValidator(read_options(BIT_SAMPLERS))] = (
        UniformBitsConfig()
    )


class ConfigSampler(ABC):
    """Draws the configs of a step: their architectures itself, their bits by its bit sampler.

    In every step the trainer calls `trace_probes` (and `set_traces` where it asks for some),
    `sample`, then `to_score` and `observe` with the losses of the configs that it named; in every
    process of a distributed training alike. `sample` depends on the seed, the step and what was
    observed alone, so it is the same on every worker and after a resume. The first draw teaches
    the others. All configs of a step have one resolution (Cai et al. 2020), so that the teacher
    sees what its pupils see.

    Args:
        space: Where to draw.
        count: Random configs a step.
        seed: Decides everything together with the step.
        config: Its settings; default: those of `settings_type`.
        horizon: When the phase of sampled configs runs.
    """

    settings_type: ClassVar[type[SamplerConfig]]

    def __init__(
        self,
        space: SearchSpace,
        count: int,
        seed: int,
        config: SamplerConfig | None = None,
        horizon: Horizon | None = None,
    ) -> None:
        self.space, self.count, self.seed = space, count, seed
        self.config = self.settings_type.model_validate({}) if config is None else config
        self.horizon = horizon or Horizon()
        options = self.config.bits
        self.bits = BIT_SAMPLERS.get(options.name)(space, seed, options, self.horizon)
        self.prepare()

    def prepare(self) -> None:
        """Make once what it needs of its space, settings and seed. Subclasses add their own."""
        self._resolution = columns(self.space, DimensionKind.RESOLUTION)

    @classmethod
    @abstractmethod
    def roles(cls, config: SamplerConfig) -> frozenset[Role]:
        """The roles that occur in every step."""

    @classmethod
    def owns_bits(cls, config: SamplerConfig) -> bool:
        """Whether it draws the bits itself, so that no other bit sampler than `uniform` fits."""
        del config
        return False

    @abstractmethod
    def rows(self, step: int, rng: np.random.Generator) -> tuple[Population, list[Role]]:
        """Rows (n, d) of choice indices of step `step` and their roles, in the order of training.

        Args:
            step: A step of the run.
            rng: A generator of its own for this step.
        """

    def sample(self, step: int) -> list[Draw]:
        """The configs of step `step`, in the order of training."""
        rows, roles = self.rows(step, np.random.default_rng((self.seed, step)))
        if not self.owns_bits(self.config):
            rows = self.bits.assign(step, rows, roles)
        return [
            Draw(self.space.from_indices(row), role) for row, role in zip(rows, roles, strict=True)
        ]

    # -- what the trainer tells -----------------------------------------------------------------

    def trace_probes(self, step: int) -> int:
        """With how many probes traces must be estimated and told before `sample(step)`."""
        return self.bits.trace_probes(step)

    def set_traces(self, step: int, traces: Mapping[str, float]) -> None:
        """Take the mean Hessian eigenvalue of every layer (site -> value), estimated at `step`."""
        self.bits.set_traces(step, traces)

    def to_score(self, step: int) -> list[Config]:
        """Configs whose loss it wants to know after step `step`, without repetition."""
        del step
        return []

    def observe(self, step: int, losses: Mapping[Config, float]) -> None:
        """Take the mean cross-entropy, in nats, of the configs of `to_score(step)` on the step's
        images and their labels, after its update."""
        del step, losses

    # -- saving ---------------------------------------------------------------------------------

    def memory(self) -> dict[str, Any]:
        """What it has observed, as JSON."""
        return {}

    def load_memory(self, memory: Mapping[str, Any]) -> None:
        """Restore what `memory` returned."""
        del memory

    def _identity(self) -> dict[str, Any]:
        return {
            "space": self.space.key,
            "count": self.count,
            "seed": self.seed,
            "config": self.config.model_dump(mode="json"),
        }

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON."""
        return self._identity() | {"memory": self.memory(), "bits_memory": self.bits.memory()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned.

        Raises:
            CheckpointError: The state belongs to another sampler.
        """
        found = {k: v for k, v in state.items() if k not in ("memory", "bits_memory")}
        if found != self._identity():
            raise CheckpointError(f"the checkpoint's sampler {found} is not {self._identity()}")
        self.load_memory(state["memory"])
        self.bits.load_memory(state["bits_memory"])


SAMPLERS: Registry[type[ConfigSampler]] = Registry("config sampler", "netcarve.samplers")
