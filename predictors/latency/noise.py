"""Relative errors of a latency model, judged by few residuals."""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit

from predictors.latency.configs import FloatArray
from predictors.scores import Z90

# The noise is taken as if so many more samples had shown this relative error.
_PRIOR_SAMPLES = 4.0
_PRIOR_NOISE = 0.03
_LEAST_SCALE = 0.01
_OUTLIER = 4.0


def relative_noise(residuals: FloatArray, fitted: int = 0) -> float:
    """Relative standard deviation whose normal 90 % interval holds for a new measurement.

    One wild residual counts as one at the edge of the others. With few samples the deviation is
    itself uncertain, so Student's quantile widens it.

    Args:
        residuals: (n,) log of measured over predicted latency, n at least 1.
        fitted: Number of parameters that these very samples determined.
    """
    scale = max(_LEAST_SCALE, 1.4826 * float(np.median(np.abs(residuals))))
    kept = np.clip(residuals, -_OUTLIER * scale, _OUTLIER * scale)
    freedom = max(1.0, len(residuals) - fitted)
    variance = float(kept @ kept) + _PRIOR_SAMPLES * _PRIOR_NOISE**2
    noise = np.sqrt(variance / (freedom + _PRIOR_SAMPLES))
    return float(noise) * float(stdtrit(max(2.0, freedom / 2.0), 0.95)) / Z90
