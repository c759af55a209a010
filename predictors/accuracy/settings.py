"""How networks that predict accuracy are built and trained."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NetworkSettings:
    """Settings of CQAP's network; much smaller than EQ-Net's 7 layers of 200, for few samples.

    Attributes:
        hidden: Widths of the hidden layers, at least one.
        members: Networks that are averaged, at least 2; each leaves out another share of the
            samples.
        steps: Least number of Adam's steps.
        epochs: Least number of passes over the samples.
        batch: Samples a step.
        learning_rate: Adam's first, decayed to zero by a cosine.
        weight_decay: Adam's.
        seed: Of everything that is random.
    """

    hidden: tuple[int, ...] = (96, 96)
    members: int = 5
    steps: int = 300
    epochs: int = 60
    batch: int = 256
    learning_rate: float = 6e-3
    weight_decay: float = 1e-5
    seed: int = 0
