"""In-place distillation: the configs of a step learn from another of its configs."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from supernet.objectives.base import OBJECTIVES, Objective, ObjectiveConfig, StepContext
from supernet.objectives.losses import alpha_divergence, distillation
from supernet.samplers.draw import Draw, Role


class DistillationConfig(ObjectiveConfig):
    """Settings of `distillation`.

    Attributes:
        teacher: `max`: all learn from the step's largest config, which learns from the labels (Yu
            and Huang 2019); `random_mean`: only the smallest learns, from the mean softmax of the
            step's random configs, which learn from the labels (ElasticViT, Tang et al. 2023).
        divergence: `kl` or `alpha` (AlphaNet, Wang et al. 2021).
    """

    name: Literal["distillation"] = "distillation"
    teacher: Literal["max", "random_mean"] = "max"
    divergence: Literal["kl", "alpha"] = "kl"


@OBJECTIVES.register("distillation")
class DistillationObjective(Objective):
    """Cross-entropy of the teacher, divergence from it for its pupils."""

    settings_type = DistillationConfig
    config: DistillationConfig

    @classmethod
    def needs(cls, config: ObjectiveConfig) -> frozenset[Role]:
        assert isinstance(config, DistillationConfig)
        if config.teacher == "max":
            return frozenset({Role.MAX})
        return frozenset({Role.RANDOM, Role.MIN})

    def loss(self, draw: Draw, logits: Tensor, labels: Tensor, context: StepContext) -> Tensor:
        alpha = self.config.divergence == "alpha"
        if self.config.teacher == "max":
            teacher = None if draw.role is Role.MAX else context.latest(Role.MAX)
            if teacher is None:
                return self.task_loss(logits, labels)
            if alpha:
                return alpha_divergence(logits, F.softmax(teacher, dim=1))
            return distillation(logits, teacher)
        mean = context.mean_probabilities() if draw.role is Role.MIN else None
        if mean is None:
            return self.task_loss(logits, labels)
        return alpha_divergence(logits, mean) if alpha else distillation(logits, mean.log())
