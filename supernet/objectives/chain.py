"""The chain high -> random -> low: progressive guidance of EQ-Net (Xu et al. 2023)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from supernet.objectives.base import OBJECTIVES, Objective, ObjectiveConfig, StepContext
from supernet.objectives.losses import distillation
from supernet.samplers.columns import BITS, columns
from supernet.samplers.draw import Draw, Role


class ChainConfig(ObjectiveConfig):
    """Settings of `chain`.

    Attributes:
        guidance: Share of the divergence from the config before; the rest is cross-entropy with
            the labels.
    """

    name: Literal["chain"] = "chain"
    guidance: Annotated[float, Field(gt=0, le=1)] = 0.5


@OBJECTIVES.register("chain")
class ChainObjective(Objective):
    """Each config learns from the one before it, the first from the labels alone.

    Where the sampler draws no largest config, the chain begins with the most bits at the
    architecture of the step's first config: high and random then differ in bits only, and no
    config of the step is much larger than another (EQ-Net, whose architecture is fixed, needs no
    such rule).
    """

    settings_type = ChainConfig
    config: ChainConfig

    @classmethod
    def raises_bits(cls, config: ObjectiveConfig) -> bool:
        return True

    def complete(self, draws: list[Draw]) -> list[Draw]:
        if any(draw.role is Role.MAX for draw in draws):
            return draws
        first = draws[0].config
        bits = columns(first.space, BITS)
        row = first.indices.copy()
        row[bits] = (first.space.cardinalities - 1)[bits]
        return [Draw(first.space.from_indices(row), Role.MAX), *draws]

    def loss(self, draw: Draw, logits: Tensor, labels: Tensor, context: StepContext) -> Tensor:
        task = self.task_loss(logits, labels)
        before = context.latest()
        if draw.role is Role.MAX or before is None:
            return task
        share = self.config.guidance
        return share * distillation(logits, before) + (1 - share) * task
