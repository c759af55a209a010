"""When a training run does what: its phases, epochs and learning rates."""

from __future__ import annotations

import math
from dataclasses import dataclass

_RAMP_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Horizon:
    """The phase of a run in which configs are sampled.

    Attributes:
        first_step: Steps of the run before the phase.
        steps: Steps of the phase.
        steps_per_epoch: Steps of one pass over the training split.
    """

    first_step: int = 0
    steps: int = 1
    steps_per_epoch: int = 1

    @property
    def epochs(self) -> int:
        """Epochs of the phase, at least 1."""
        return max(1, -(-self.steps // self.steps_per_epoch))

    def place(self, step: int) -> tuple[int, int]:
        """(epoch of the phase, step within it) of a step of the run, which is not before it."""
        return divmod(max(0, step - self.first_step), self.steps_per_epoch)

    def progress(self, step: int) -> float:
        """Share of the phase that lies behind `step`, 0 to 1."""
        return min(1.0, max(0.0, (step - self.first_step) / max(1, self.steps)))


@dataclass(frozen=True, slots=True)
class Rates:
    """Learning rates of one step.

    Attributes:
        weights: Of weights, biases and normalisation.
        quantizers: Of scales and zero points.
    """

    weights: float
    quantizers: float


def ramped_cosine(step: int, total: int, floor: float) -> float:
    """Linear ramp over the first twentieth of `total` steps, then a cosine from 1 to `floor`."""
    ramp = max(1, round(_RAMP_SHARE * total))
    if step < ramp:
        return (step + 1) / ramp
    angle = math.pi * (step - ramp) / max(1, total - ramp)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(angle))
