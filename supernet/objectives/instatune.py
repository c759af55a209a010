"""InstaTune (Sridhar et al. 2023): the task's loss mixed with distillation, during fine-tuning."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from supernet.objectives.base import OBJECTIVES, Objective, ObjectiveConfig, StepContext
from supernet.objectives.losses import distillation
from supernet.samplers.draw import Draw, Role


class InstaTuneConfig(ObjectiveConfig):
    """Settings of `instatune`.

    Attributes:
        task_share: Share of the cross-entropy with the labels, the paper's alpha; the rest is
            distillation.
        temperature: Of both distributions in the distillation, the paper's rho.
        teacher_until: Share of the phase in which the external teacher distils (the paper's gamma
            is 1); after it, the largest config distils into the others (gamma is 0).
    """

    name: Literal["instatune"] = "instatune"
    task_share: Annotated[float, Field(gt=0, le=1)] = 0.3
    temperature: Annotated[float, Field(gt=0)] = 1.0
    teacher_until: Annotated[float, Field(ge=0, le=1)] = 0.0


@OBJECTIVES.register("instatune")
class InstaTuneObjective(Objective):
    """Every config: its share of the task's loss, and distillation from one teacher.

    While the external teacher distils, it distils into all configs and the largest into none.
    """

    settings_type = InstaTuneConfig
    config: InstaTuneConfig

    @classmethod
    def uses_teacher(cls, config: ObjectiveConfig) -> bool:
        assert isinstance(config, InstaTuneConfig)
        return config.teacher_until > 0

    @classmethod
    def needs(cls, config: ObjectiveConfig) -> frozenset[Role]:
        assert isinstance(config, InstaTuneConfig)
        return frozenset({Role.MAX}) if config.teacher_until < 1 else frozenset()

    def loss(self, draw: Draw, logits: Tensor, labels: Tensor, context: StepContext) -> Tensor:
        share, temperature = self.config.task_share, self.config.temperature
        task = share * self.task_loss(logits, labels)
        if context.progress < self.config.teacher_until:
            teacher = context.teacher
        else:
            teacher = None if draw.role is Role.MAX else context.latest(Role.MAX)
        if teacher is None:
            return task
        return task + (1 - share) * distillation(logits, teacher, temperature)
