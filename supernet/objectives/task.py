"""The task's own loss for every config."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from supernet.objectives.base import OBJECTIVES, Objective, ObjectiveConfig, StepContext
from supernet.samplers.draw import Draw


class TaskConfig(ObjectiveConfig):
    """Settings of `task`: it has none."""

    name: Literal["task"] = "task"


@OBJECTIVES.register("task")
class TaskObjective(Objective):
    """Cross-entropy with the labels."""

    settings_type = TaskConfig

    def loss(self, draw: Draw, logits: Tensor, labels: Tensor, context: StepContext) -> Tensor:
        del draw, context
        return self.task_loss(logits, labels)
