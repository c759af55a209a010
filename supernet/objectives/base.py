"""Objective: the loss of every config of a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from spaces.registry import Registry
from supernet.objectives.losses import cross_entropy
from supernet.plugin import PluginConfig
from supernet.samplers.draw import Draw, Role


class ObjectiveConfig(PluginConfig):
    """Base of the settings of an objective."""


@dataclass(slots=True)
class StepContext:
    """What the objective may know of the step besides the config at hand.

    Attributes:
        progress: Share of the phase of sampled configs that lies behind, 0 to 1.
        teacher: Logits [N, classes] of the external teacher; None when there is none.
        earlier: The configs before this one with their detached logits, in the order of training.
    """

    progress: float = 0.0
    teacher: Tensor | None = None
    earlier: list[tuple[Draw, Tensor]] = field(default_factory=list)

    def latest(self, role: Role | None = None) -> Tensor | None:
        """Logits [N, classes] of the latest earlier config, of this role if one is given."""
        found = [logits for draw, logits in self.earlier if role in (None, draw.role)]
        return found[-1] if found else None

    def mean_probabilities(self) -> Tensor | None:
        """Mean of the softmax [N, classes] of the earlier random configs; None without any."""
        found = [F.softmax(z, dim=1) for draw, z in self.earlier if draw.role is Role.RANDOM]
        return sum(found[1:], found[0]) / len(found) if found else None


class Objective(ABC):
    """Called by the trainer in every step: `complete` once, then `loss` for each config in order.

    Every loss is a mean over the images that it is given, so that the loss of a global batch is
    the weighted mean of its workers' losses.

    Args:
        config: Its settings.
        smoothing: Label smoothing of cross-entropies with the labels.
    """

    settings_type: ClassVar[type[ObjectiveConfig]]

    def __init__(self, config: ObjectiveConfig, smoothing: float = 0.0) -> None:
        self.config, self.smoothing = config, smoothing

    @classmethod
    def needs(cls, config: ObjectiveConfig) -> frozenset[Role]:
        """Roles without which it cannot work."""
        del config
        return frozenset()

    @classmethod
    def uses_teacher(cls, config: ObjectiveConfig) -> bool:
        """Whether it needs an external teacher."""
        del config
        return False

    @classmethod
    def raises_bits(cls, config: ObjectiveConfig) -> bool:
        """Whether it adds a teacher of the most bits where the sampler draws no largest config."""
        del config
        return False

    def complete(self, draws: list[Draw]) -> list[Draw]:
        """The configs to train in this step; default: those that the sampler drew."""
        return draws

    @abstractmethod
    def loss(self, draw: Draw, logits: Tensor, labels: Tensor, context: StepContext) -> Tensor:
        """The loss of one config.

        Args:
            draw: The config and its role.
            logits: float32 [N, classes].
            labels: int64 [N].
            context: What came before it in the step.

        Returns:
            Scalar.
        """

    def task_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy with the (smoothed) labels."""
        return cross_entropy(logits, labels, self.smoothing)


OBJECTIVES: Registry[type[Objective]] = Registry("objective", "netcarve.objectives")
