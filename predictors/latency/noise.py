"""Relative errors of a latency model, judged by few residuals."""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit

from predictors.latency.configs import FloatArray
from predictors.scores import Z90

# The noise is taken as if so many more samples had shown this relative error.
_PRIOR_SAMPLES = 4.0
_PRIOR_NOISE = 0.03
LEAST_SCALE = 0.01
"""Relative error below which a measurement is never suspected of being disturbed."""

OUTLIER = 4.0
"""Residuals beyond so many scales are taken for disturbed measurements."""


def relative_noise(residuals: FloatArray, fitted: int = 0) -> float:
    """Relative standard deviation whose normal 90 % interval holds for a new measurement.

    One wild residual counts as one at the edge of the others. With few samples the deviation is
    itself uncertain, so Student's quantile widens it.

    Args:
        residuals: (n,) log of measured over predicted latency, n at least 1.
        fitted: Number of parameters that these very samples determined.
    """
    bound = OUTLIER * residual_scale(residuals)
    kept = np.clip(residuals, -bound, bound)
    count = max(1.0, len(residuals) - fitted)
    return widened_noise(float(kept @ kept), count, count / 2.0)


def residual_scale(residuals: FloatArray) -> float:
    """Standard deviation of most residuals (n,), by their median; never less than 1 %, below
    which no measurement is suspected of being an outlier."""
    return max(LEAST_SCALE, 1.4826 * float(np.median(np.abs(residuals))))


def widened_noise(squares: float, count: float, freedom: float) -> float:
    """Relative standard deviation whose normal 90 % interval holds, under a weak prior of 3 %.

    Args:
        squares: Sum of squared relative residuals.
        count: Residuals in it.
        freedom: Degrees of freedom of Student's quantile, at least 2 are taken.
    """
    variance = (squares + _PRIOR_SAMPLES * _PRIOR_NOISE**2) / (count + _PRIOR_SAMPLES)
    return float(np.sqrt(variance)) * float(stdtrit(max(2.0, freedom), 0.95)) / Z90
