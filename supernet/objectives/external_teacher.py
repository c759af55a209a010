"""Soft labels of a network that is not trained."""

from __future__ import annotations

from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from supernet.objectives.base import OBJECTIVES, Objective, ObjectiveConfig, StepContext
from supernet.objectives.losses import alpha_divergence, soft_cross_entropy
from supernet.samplers.draw import Draw, Role


class ExternalTeacherConfig(ObjectiveConfig):
    """Settings of `external_teacher`.

    Attributes:
        temperature: The teacher's logits are divided by it; below 1 its labels become sharper
            (ElasticViT, Tang et al. 2023, takes 0.2 and the mean of two teachers).
        smallest: From whom the smallest config learns: the `teacher` like the others, or by
            alpha-divergence from the `random_mean`, the mean softmax of the step's random configs
            (ElasticViT).
    """

    name: Literal["external_teacher"] = "external_teacher"
    temperature: Annotated[float, Field(gt=0)] = 1.0
    smallest: Literal["teacher", "random_mean"] = "teacher"


@OBJECTIVES.register("external_teacher")
class ExternalTeacherObjective(Objective):
    """Cross-entropy with the softmax of the teacher's logits."""

    settings_type = ExternalTeacherConfig
    config: ExternalTeacherConfig

    @classmethod
    def uses_teacher(cls, config: ObjectiveConfig) -> bool:
        return True

    @classmethod
    def needs(cls, config: ObjectiveConfig) -> frozenset[Role]:
        assert isinstance(config, ExternalTeacherConfig)
        if config.smallest == "teacher":
            return frozenset()
        return frozenset({Role.RANDOM, Role.MIN})

    def loss(self, draw: Draw, logits: Tensor, labels: Tensor, context: StepContext) -> Tensor:
        if self.config.smallest == "random_mean" and draw.role is Role.MIN:
            mean = context.mean_probabilities()
            if mean is not None:
                return alpha_divergence(logits, mean)
        if context.teacher is None:
            raise ValueError("objective external_teacher has no teacher")
        return soft_cross_entropy(logits, F.softmax(context.teacher / self.config.temperature, 1))
