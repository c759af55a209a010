"""UpdateRule: when and how the gradients of a step's configs change the weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from spaces.registry import Registry
from supernet.distributed import World
from supernet.plugin import PluginConfig
from supernet.samplers.draw import Draw
from supernet.schedule import Rates
from supernet.supernet import Supernet
from supernet.updates.clipping import Clip, clip_gradients
from supernet.updates.optimizers import OptimizerName


class UpdateConfig(PluginConfig):
    """Base of the settings of an update rule.

    Attributes:
        optimizer: `adamw`, or `sgd` with momentum 0.9.
        clip: Clipping of the weights' gradients before an update: `none`, `value` (each element),
            `norm` (all together), `adaptive` (each output channel relative to its weights).
        clip_limit: Largest value, norm or ratio; belongs to `clip`.
        scale_rates: Learning rates of scales and zero points: `scheduled` like those of the
            weights, or `adaptive` to their bits and gradients (Double Rounding).
    """

    optimizer: OptimizerName = "adamw"
    clip: Clip = "none"
    clip_limit: Annotated[float, Field(gt=0)] | None = None
    scale_rates: Literal["scheduled", "adaptive"] = "scheduled"

    @model_validator(mode="after")
    def _clip_has_its_limit(self) -> Self:
        if (self.clip == "none") != (self.clip_limit is None):
            raise ValueError(
                f"clip {self.clip!r} with clip_limit {self.clip_limit}; allowed: 'none' without, "
                "'value', 'norm' or 'adaptive' with a clip_limit"
            )
        return self


class UpdateRule(ABC):
    """Owns the optimisers. In every step the trainer calls `begin`, `after_backward` for each
    config when its gradients have been added, and `finish`.

    Args:
        supernet: What is trained.
        config: Its settings.
        weight_decay: Of weight matrices and convolutions; scales and zero points have none.
        world: Whose workers share their gradients.
    """

    settings_type: ClassVar[type[UpdateConfig]]
    updates_between: ClassVar[bool] = False
    """Whether weights change between the configs of a step."""

    def __init__(
        self,
        supernet: Supernet,
        config: UpdateConfig,
        weight_decay: float,
        world: World,
    ) -> None:
        self.supernet, self.config, self.world = supernet, config, world
        self.weight_decay = weight_decay
        self.reset()

    @abstractmethod
    def reset(self) -> None:
        """Forget all moments: the weights have been changed by other means."""

    def share(self, count: int) -> float:
        """Factor of the loss of each of a step's `count` configs."""
        del count
        return 1.0

    @abstractmethod
    def begin(self, rates: Rates) -> None:
        """Clear all gradients and set the learning rates of the step."""

    @abstractmethod
    def after_backward(self, draw: Draw) -> None:
        """The gradients of the loss of `draw` have been added."""

    @abstractmethod
    def finish(self) -> None:
        """All configs of the step have been seen."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The optimisers' state by name, for a checkpoint."""

    @abstractmethod
    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `tensors` returned; moments that it does not hold are forgotten.

        Raises:
            KeyError, IndexError, ValueError: A tensor is missing, unknown or of another shape.
        """

    # -- for subclasses -------------------------------------------------------------------------

    def weight_groups(self) -> list[dict[str, Any]]:
        """Parameter groups of all weights: with weight decay, then without."""
        weights = self.supernet.weight_parameters()
        return [
            {"params": [p for p in weights if p.dim() > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in weights if p.dim() <= 1]},
        ]

    def clip(self) -> None:
        """Clip the gradients of the weights as the settings say."""
        if self.config.clip_limit is not None:
            weights = self.supernet.weight_parameters()
            clip_gradients(weights, self.config.clip, self.config.clip_limit)


UPDATES: Registry[type[UpdateRule]] = Registry("update rule", "netcarve.updates")
