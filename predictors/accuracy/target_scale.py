"""Accuracies on the scale on which regressions learn them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from predictors.base import FloatArray, Prediction

# Accuracy saturates: the logarithm of the error is closer to linear in capacity. The offset keeps
# a subnet without any error on a small split from weighing like one of another kind.
_ERROR_OFFSET = 0.01
_LEAST_STD = 1e-4


@dataclass(frozen=True)
class TargetScale:
    """Negative logarithms of the error, standardised.

    Attributes:
        mean: Of the logarithms.
        spread: Their standard deviation; above 0.
    """

    mean: float
    spread: float

    @classmethod
    def of(cls, accuracy: FloatArray) -> Self:
        """The scale of samples (n,), fractions between 0 and 1."""
        warped = _warped(accuracy)
        return cls(float(warped.mean()), max(float(warped.std()), 1e-3))

    def __call__(self, accuracy: FloatArray) -> FloatArray:
        """Accuracies (n,) -> targets (n,), of mean 0 and variance 1 over the samples."""
        return (_warped(accuracy) - self.mean) / self.spread

    def accuracy(self, mean: FloatArray, std: FloatArray) -> Prediction:
        """Means and standard deviations (n,) of targets -> those of accuracies, fractions."""
        warped = self.mean + self.spread * mean
        error = np.clip(np.exp(-warped) - _ERROR_OFFSET, 0.0, 1.0)
        # First-order propagation through the logarithm.
        spread = (error + _ERROR_OFFSET) * self.spread * std
        return 1.0 - error, np.maximum(spread, _LEAST_STD)


def _warped(accuracy: FloatArray) -> FloatArray:
    warped: FloatArray = -np.log(1.0 - accuracy + _ERROR_OFFSET)
    return warped
