"""Training objectives, found by name in `OBJECTIVES`."""

from __future__ import annotations

from supernet.objectives.base import OBJECTIVES, Objective, ObjectiveConfig, StepContext
from supernet.objectives.chain import ChainConfig, ChainObjective
from supernet.objectives.external_teacher import ExternalTeacherConfig, ExternalTeacherObjective
from supernet.objectives.in_place_distillation import DistillationConfig, DistillationObjective
from supernet.objectives.instatune import InstaTuneConfig, InstaTuneObjective
from supernet.objectives.losses import (
    alpha_divergence,
    cross_entropy,
    distillation,
    soft_cross_entropy,
)
from supernet.objectives.task import TaskConfig, TaskObjective

__all__ = [
    "OBJECTIVES",
    "ChainConfig",
    "ChainObjective",
    "DistillationConfig",
    "DistillationObjective",
    "ExternalTeacherConfig",
    "ExternalTeacherObjective",
    "InstaTuneConfig",
    "InstaTuneObjective",
    "Objective",
    "ObjectiveConfig",
    "StepContext",
    "TaskConfig",
    "TaskObjective",
    "alpha_divergence",
    "cross_entropy",
    "distillation",
    "soft_cross_entropy",
]
