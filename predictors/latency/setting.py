"""What the default latency predictor leaves open: one choice, the same for every task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from predictors.latency.resemblance import DEVICES

DESIGN: Mapping[str, float] = {
    DEVICES: 1.0, "counts": 1.0, "costs": 1.0, "kernels": 1.0, "macs": 0.0,
    "amounts": 0.3, "choices": 0.01,
}  # fmt: skip


@dataclass(frozen=True)
class AdaptiveSetting:
    """How samples are chosen, and how much is read out of a table.

    `benchmarks/latency_setting.py` compares candidates by nested leave-one-family-out.

    Attributes:
        design: Kernel -> weight in the covariance for which samples are designed: whichever of
            them explains the device.
        design_noise: Noise variance of that design, beside the kernels' variances.
        factors: Most combinations of a table's devices that a new device may have.
    """

    design: Mapping[str, float] = field(default_factory=lambda: DESIGN)
    design_noise: float = 0.1
    factors: int = 3
