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
