"""Configs as rows of numbers of one scale, for regressions and networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from predictors.latency.choices import one_hot_choices
from predictors.latency.configs import Configs, FloatArray
from predictors.latency.encoding import KERNEL_SUM

# Share of an amount's mean that is added before the logarithm: an amount may be 0.
_FLOOR = 0.02
# Configs outside those the scale was taken from stay within some standard deviations of them.
_FAR = 5.0


@dataclass(frozen=True)
class InputEncoding:
    """One-hot choices beside standardised logarithms of the amounts.

    The kernels' summed latency is left out: it belongs to one device.

    Attributes:
        floor: (f,) added to the amounts before the logarithm.
        mean: (f,) of the logarithms.
        scale: (f,) 1 / their standard deviation, 0 where an amount does not vary.
    """

    floor: FloatArray
    mean: FloatArray
    scale: FloatArray

    @classmethod
    def of(cls, configs: Configs) -> Self:
        """The encoding whose scale is taken from some configs."""
        floor = _FLOOR * configs.amounts.mean(axis=0)
        # An amount that is 0 everywhere has no logarithm and no use.
        logs = np.log(configs.amounts + np.where(floor > 0, floor, 1.0))
        std = logs.std(axis=0)
        kept = (std > 1e-9) & np.array(
            [amount.name != KERNEL_SUM for amount in configs.schema.amounts], dtype=np.bool_
        )
        scale = np.where(kept, 1.0 / np.where(kept, std, 1.0), 0.0)
        return cls(np.where(floor > 0, floor, 1.0), logs.mean(axis=0), scale)

    def __call__(self, configs: Configs) -> FloatArray:
        """Inputs float64 (n, i); amounts of scale 0 have none."""
        logs = (np.log(configs.amounts + self.floor) - self.mean) * self.scale
        varying = np.clip(logs[:, self.scale > 0], -_FAR, _FAR)
        return np.column_stack([one_hot_choices(configs), varying])

    def choices_only(self) -> Self:
        """The encoding without the amounts."""
        return replace(self, scale=np.zeros_like(self.scale))

    def state(self) -> dict[str, NDArray[Any]]:
        """Arrays for `restore`."""
        return {"inputs.floor": self.floor, "inputs.mean": self.mean, "inputs.scale": self.scale}

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """What `state` described.

        Raises:
            KeyError: An array is missing.
        """
        return cls(arrays["inputs.floor"], arrays["inputs.mean"], arrays["inputs.scale"])
