"""Which configs to measure first: Bayesian D-optimal design.

The determinant of the information matrix is maximised greedily and then by exchanges (Fedorov,
1972). With a ridge term the design exists for fewer samples than features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from predictors.errors import TooFewSamplesError

FloatArray = NDArray[np.float64]


def d_optimal(
    features: FloatArray, count: int, rng: np.random.Generator, ridge: float = 1e-3
) -> NDArray[np.int64]:
    """Rows whose measurements determine a linear model best.

    Maximises ``log det(ridge * I + sum of x x^T)`` over sets of `count` different rows.

    Args:
        features: (p, f) of the pool, finite, scaled so that a prior of equal variance for every
            coefficient makes sense.
        count: Number of rows to choose.
        rng: Only breaks ties between rows, so a design is a function of its arguments.
        ridge: Prior precision of a coefficient, in units of one measurement; above 0.

    Returns:
        (count,) different row numbers, in the order in which greedy choice would take them.

    Raises:
        TooFewSamplesError: Fewer rows than `count`.
        ValueError: A feature is not finite, or `ridge` is not above 0.
    """
    if ridge <= 0 or not np.isfinite(features).all():
        raise ValueError(f"features must be finite and ridge above 0, got ridge {ridge}")
    if count > len(features):
        raise TooFewSamplesError(
            f"{count} configs are to be chosen from a pool of {len(features)} different ones"
        )
    order = rng.permutation(len(features))
    rows = np.asarray(features, dtype=np.float64)[order]
    chosen = _greedy(rows, np.arange(len(rows)), count, ridge)
    chosen = _exchange(rows, chosen, ridge)
    chosen = chosen[_greedy(rows[chosen], np.arange(count), count, ridge)]
    return order[chosen].astype(np.int64)


def _greedy(
    rows: FloatArray, candidates: NDArray[np.int64], count: int, ridge: float
) -> NDArray[np.int64]:
    """Add the row of the largest leverage, `count` times; a rank-one update a step."""
    inverse = np.eye(rows.shape[1]) / ridge
    leverage = (rows**2).sum(axis=1) / ridge
    free = np.ones(len(rows), dtype=np.bool_)
    chosen = []
    for _ in range(count):
        best = int(np.argmax(np.where(free, leverage, -np.inf)))
        chosen.append(candidates[best])
        free[best] = False
        direction = inverse @ rows[best]
        scale = 1.0 + float(rows[best] @ direction)
        inverse -= np.outer(direction, direction) / scale
        leverage = leverage - (rows @ direction) ** 2 / scale
    return np.array(chosen, dtype=np.int64)


def _exchange(
    rows: FloatArray, chosen: NDArray[np.int64], ridge: float, sweeps: int = 10
) -> NDArray[np.int64]:
    """Swap a chosen row for another while that raises the determinant."""
    chosen = chosen.copy()
    identity = np.eye(rows.shape[1])
    for _ in range(sweeps):
        swapped = False
        for position in range(len(chosen)):
            rest = np.delete(chosen, position)
            inverse = np.linalg.inv(ridge * identity + rows[rest].T @ rows[rest])
            # det(A + x x^T) = det(A) (1 + x^T A^-1 x): the best replacement has most leverage.
            leverage = np.einsum("ij,jk,ik->i", rows, inverse, rows, optimize=True)
            leverage[rest] = -np.inf
            best = int(np.argmax(leverage))
            if leverage[best] > leverage[chosen[position]] * (1 + 1e-9):
                chosen[position] = best
                swapped = True
        if not swapped:
            break
    return chosen


def i_optimal(
    covariance: FloatArray,
    noise: float,
    count: int,
    wanted: NDArray[np.int64] | None = None,
    sweeps: int = 3,
) -> NDArray[np.int64]:
    """Rows whose measurements leave the least variance in the predictions of others.

    Minimises the mean posterior variance of a Gaussian process over the wanted rows (I- or
    V-optimality; with a linear kernel that of Bayesian regression), greedily and then by exchanges.

    Args:
        covariance: (p, p) prior covariance of the pool.
        noise: Variance of a measurement, above 0.
        count: Number of rows to choose.
        wanted: Rows that will be predicted; all when None.
        sweeps: Rounds of exchanges.

    Returns:
        (count,) different row numbers, in the order of the greedy choice.

    Raises:
        TooFewSamplesError: Fewer rows than `count`.
        ValueError: `noise` is not above 0.
    """
    if not noise > 0:
        raise ValueError(f"noise must be above 0, got {noise}")
    if count > len(covariance):
        raise TooFewSamplesError(
            f"{count} configs are to be chosen from a pool of {len(covariance)} different ones"
        )
    across = covariance if wanted is None else covariance[wanted]
    variances = np.diag(covariance)
    chosen: list[int] = []
    # Posterior covariances of the wanted rows with all, and of the chosen rows with all.
    left, remaining = across.copy(), variances.copy()
    factors = np.empty((0, len(covariance)))
    for _ in range(count):
        gain = (left**2).sum(axis=0) / (remaining + noise)
        gain[chosen] = -np.inf
        best = int(np.argmax(gain))
        column = covariance[best] - factors.T @ factors[:, best]
        factor = column / np.sqrt(column[best] + noise)
        scale = np.sqrt(column[best] + noise)
        left = left - np.outer(left[:, best] / scale, factor)
        remaining = np.maximum(remaining - factor**2, 0.0)
        factors = np.vstack([factors, factor])
        chosen.append(best)
    for _ in range(sweeps):
        swapped = False
        for position in range(count):
            rest = [row for place, row in enumerate(chosen) if place != position]
            known = covariance[np.ix_(rest, rest)] + noise * np.eye(len(rest))
            weights = np.linalg.solve(known, covariance[rest])
            others = across - across[:, rest] @ weights
            spread = np.maximum(variances - (covariance[rest] * weights).sum(axis=0), 0.0)
            gain = (others**2).sum(axis=0) / (spread + noise)
            gain[rest] = -np.inf
            best = int(np.argmax(gain))
            if best != chosen[position] and gain[best] > gain[chosen[position]] * (1 + 1e-9):
                chosen[position] = best
                swapped = True
        if not swapped:
            break
    return np.array(chosen, dtype=np.int64)
