"""Marginal likelihood of Gaussian processes whose covariance is a weighted sum of kernels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import cho_solve
from scipy.optimize import minimize

from predictors.latency.configs import FloatArray

# Bounds of the logarithms of weights, for targets of variance about 1.
_LEAST, _MOST = -12.0, 4.0
JITTER = 1e-4


def most_likely_weights(
    kernels: Sequence[FloatArray],
    target: FloatArray,
    start: FloatArray,
    centre: FloatArray | None = None,
    width: FloatArray | None = None,
    steps: int = 25,
) -> FloatArray:
    """Weights that maximise the marginal likelihood (Rasmussen and Williams, 2006, chapter 5).

    Args:
        kernels: J matrices (n, n).
        target: (n,), of variance about 1.
        start: (J + 1,) logarithms of the kernels' weights and of the noise variance.
        centre: (J + 1,) of a normal prior of the logarithms; None for no prior.
        width: (J + 1,) its standard deviations.
        steps: Steps of L-BFGS.

    Returns:
        (J + 1,) logarithms.
    """
    count, stacked = len(target), np.stack(kernels)

    def negative(logs: FloatArray) -> tuple[float, FloatArray]:
        weights = np.exp(logs)
        covariance = np.tensordot(weights[:-1], stacked, axes=1)
        covariance[np.diag_indices(count)] += weights[-1] + JITTER
        lower = np.linalg.cholesky(covariance)
        inverse = cho_solve((lower, True), np.eye(count))
        solved = inverse @ target
        value = 0.5 * float(target @ solved) + float(np.log(np.diag(lower)).sum())
        change = inverse - np.outer(solved, solved)
        slope = 0.5 * weights * np.append(np.tensordot(stacked, change, axes=2), np.trace(change))
        if centre is not None and width is not None:
            away = (logs - centre) / width
            value, slope = value + 0.5 * float(away @ away), slope + away / width
        return value, slope

    bounds = [(_LEAST, _MOST)] * len(start)
    found = minimize(
        negative,
        np.clip(start, _LEAST, _MOST),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": steps},
    )
    logs: FloatArray = found.x
    return logs
