"""How good predictions are."""

from __future__ import annotations

import numpy as np

from predictors.base import FloatArray
from predictors.errors import TooFewSamplesError

# Two-sided 90 % quantile of the normal distribution.
Z90 = 1.6448536269514722


def scores(target: FloatArray, mean: FloatArray, std: FloatArray | None = None) -> dict[str, float]:
    """Rank correlations, relative error and calibration.

    Args:
        target: (n,) measured values, n at least 2.
        mean: (n,) predicted.
        std: (n,) predicted standard deviations, or None.

    Returns:
        `spearman` and `kendall` (tau-b; both 0 where one side is constant), `mape` in percent (of
        the targets that are not 0), and with `std`, `coverage90`: the share of the targets inside
        the central 90 % interval, to be compared with 0.9.

    Raises:
        TooFewSamplesError: Fewer than 2 samples.
    """
    if len(target) < 2:
        raise TooFewSamplesError(f"scores need at least 2 samples, got {len(target)}")
    nonzero = target != 0
    relative = np.abs(mean[nonzero] - target[nonzero]) / np.abs(target[nonzero])
    result = {
        "spearman": spearman(target, mean),
        "kendall": kendall(target, mean),
        "mape": 100.0 * float(relative.mean()) if nonzero.any() else 0.0,
    }
    if std is not None:
        result["coverage90"] = float((np.abs(target - mean) <= Z90 * std).mean())
    return result


def spearman(first: FloatArray, second: FloatArray) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; 0 where one side is constant."""
    a, b = _ranks(first), _ranks(second)
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else 0.0


def kendall(first: FloatArray, second: FloatArray) -> float:
    """Kendall's tau-b by comparing all pairs; 0 where one side is constant."""
    a = np.sign(first[:, None] - first[None, :])
    b = np.sign(second[:, None] - second[None, :])
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 0.0


def _ranks(values: FloatArray) -> FloatArray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    middle: FloatArray = last - (counts - 1) / 2
    return middle[inverse]
