"""Pareto ranking, crowding, hypervolume and hypervolume improvement of small objective arrays.

Every function takes objectives that are all minimised, ``(n, m)`` float64, one row per point. Whole
arrays are compared at once; the memory is O(n^2), meant for populations of up to a few thousand.
Ranking follows NSGA-II (Deb et al., 2002) with its constrained domination: feasible points before
infeasible ones, infeasible points by their total violation alone.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


def dominance(objectives: FloatArray, violation: FloatArray | None = None) -> BoolArray:
    """Constrained domination of every pair.

    Args:
        objectives: (n, m), minimised.
        violation: (n,) total constraint violation, 0 where feasible; None when unconstrained.

    Returns:
        (n, n) bool, ``[i, j]`` true when i dominates j.
    """
    n, m = objectives.shape
    no_worse = np.ones((n, n), dtype=np.bool_)
    better = np.zeros((n, n), dtype=np.bool_)
    for k in range(m):
        column = objectives[:, k]
        no_worse &= column[:, None] <= column[None, :]
        better |= column[:, None] < column[None, :]
    pareto: BoolArray = no_worse & better
    if violation is None or not np.any(violation > 0):
        return pareto
    amount = np.maximum(violation, 0.0)
    less = amount[:, None] < amount[None, :]
    both_feasible = (amount[:, None] == 0) & (amount[None, :] == 0)
    return np.where(both_feasible, pareto, less)


def non_dominated_sort(objectives: FloatArray, violation: FloatArray | None = None) -> IntArray:
    """Front number of every point, 0 for the best.

    With violations, feasible points are sorted by Pareto dominance and every infeasible point comes
    after all of them, in order of its violation; so when nothing is feasible the closest are first.

    Args:
        objectives: (n, m), minimised.
        violation: (n,) or None, see :func:`dominance`.

    Returns:
        (n,) int64 ranks.
    """
    n = len(objectives)
    ranks = np.zeros(n, dtype=np.int64)
    if n == 0:
        return ranks
    if objectives.shape[1] == 0:
        raise ValueError("non_dominated_sort needs at least one objective, got 0")
    if violation is not None and np.any(violation > 0):
        amount = np.maximum(violation, 0.0)
        feasible = amount == 0
        ranks[feasible] = _peel(objectives[feasible])
        offset = int(ranks[feasible].max()) + 1 if feasible.any() else 0
        ranks[~feasible] = offset + np.unique(amount[~feasible], return_inverse=True)[1]
        return ranks
    return _peel(objectives)


def _peel(objectives: FloatArray) -> IntArray:
    n = len(objectives)
    ranks = np.full(n, -1, dtype=np.int64)
    matrix = dominance(objectives)
    dominators = matrix.sum(axis=0)
    rank = 0
    while True:
        front = np.flatnonzero((dominators == 0) & (ranks < 0))
        if not front.size:
            return ranks
        ranks[front] = rank
        dominators = dominators - matrix[front].sum(axis=0)
        rank += 1


def non_dominated(objectives: FloatArray, violation: FloatArray | None = None) -> BoolArray:
    """Mask (n,) of the points of front 0 (the closest ones when nothing is feasible)."""
    if not len(objectives):
        return np.zeros(0, dtype=np.bool_)
    return np.logical_not(np.asarray(dominance(objectives, violation).any(axis=0)))


def crowding_distance(objectives: FloatArray, ranks: IntArray) -> FloatArray:
    """NSGA-II crowding distance inside each front.

    Args:
        objectives: (n, m), minimised.
        ranks: (n,) front numbers.

    Returns:
        (n,) distances; infinite at the ends of a front in any objective.
    """
    n, m = objectives.shape
    distance = np.zeros(n, dtype=np.float64)
    if n == 0:
        return distance
    for k in range(m):
        # One sort for all fronts: rows are grouped by rank, ordered by the objective inside.
        order = np.lexsort((objectives[:, k], ranks))
        values, fronts = objectives[order, k], ranks[order]
        first = np.r_[True, fronts[1:] != fronts[:-1]]
        last = np.r_[first[1:], True]
        starts, ends = np.flatnonzero(first), np.flatnonzero(last)
        sizes = ends - starts + 1
        span = np.repeat(values[ends] - values[starts], sizes)
        gap = np.zeros(n)
        gap[1:-1] = values[2:] - values[:-2]
        normalised = np.divide(gap, span, out=np.zeros(n), where=span > 0)
        normalised[first | last] = np.inf
        distance[order] += normalised
    return distance


def best_order(objectives: FloatArray, violation: FloatArray | None = None) -> IntArray:
    """Indices (n,) from best to worst: by front, then by larger crowding distance, then by row."""
    ranks = non_dominated_sort(objectives, violation)
    crowding = crowding_distance(objectives, ranks)
    return np.lexsort((-crowding, ranks)).astype(np.int64)


def hypervolume(objectives: FloatArray, reference: FloatArray) -> float:
    """Exact volume dominated by the points and bounded by the reference point.

    Sweeps the last objective and recurses on the rest: O(n log n) for two objectives, O(n^2 log n)
    for three; more objectives work but cost a factor n each.

    Args:
        objectives: (n, m), minimised.
        reference: (m,); points that are not better than it in every objective count nothing.
    """
    points = objectives[(objectives < reference).all(axis=1)]
    return _volume(points, reference) if len(points) else 0.0


def _volume(points: FloatArray, reference: FloatArray) -> float:
    if len(reference) == 1:
        return float(reference[0] - points[:, 0].min())
    if len(reference) == 2:
        order = np.lexsort((points[:, 1], points[:, 0]))
        x, y = points[order, 0], points[order, 1]
        ceiling = np.r_[reference[1], np.minimum.accumulate(y)[:-1]]
        return float(((reference[0] - x) * np.maximum(ceiling - y, 0.0)).sum())
    order = np.argsort(points[:, -1], kind="stable")
    points = points[order]
    depths = np.diff(np.r_[points[:, -1], reference[-1]])
    return float(
        sum(
            depth * _volume(points[: i + 1, :-1], reference[:-1])
            for i, depth in enumerate(depths)
            if depth > 0
        )
    )


def non_dominated_boxes(
    objectives: FloatArray, reference: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Disjoint boxes that tile the region which the points do not dominate, below the reference.

    Args:
        objectives: (n, m), minimised; n may be 0.
        reference: (m,) upper corner.

    Returns:
        (lower, upper), each (b, m); lower bounds may be -inf.
    """
    points = objectives[(objectives < reference).all(axis=1)]
    if len(points):
        points = np.unique(points[non_dominated(points)], axis=0)
    boxes = _boxes(points, reference)
    lower = np.array([box[0] for box in boxes], dtype=np.float64).reshape(-1, len(reference))
    upper = np.array([box[1] for box in boxes], dtype=np.float64).reshape(-1, len(reference))
    return lower, upper


def _boxes(
    points: FloatArray, reference: FloatArray
) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """Boxes by slabs of the last objective; inside a slab only the points below it dominate."""
    top = float(reference[-1])
    if len(reference) == 1:
        return [((-np.inf,), (float(points[:, 0].min()) if len(points) else top,))]
    cuts = np.unique(points[:, -1])
    edges = [-np.inf, *cuts.tolist(), top]
    boxes = []
    for low, high in itertools.pairwise(edges):
        below = points[points[:, -1] <= low][:, :-1]
        if len(below) > 1:
            below = below[non_dominated(below)]
        boxes += [((*lower, low), (*upper, high)) for lower, upper in _boxes(below, reference[:-1])]
    return boxes


def improvement(points: FloatArray, boxes: tuple[FloatArray, FloatArray]) -> FloatArray:
    """Hypervolume that each point alone would add.

    Args:
        points: (..., m), minimised.
        boxes: from :func:`non_dominated_boxes`.

    Returns:
        (...) volumes, 0 for points that are dominated or beyond the reference.
    """
    lower, upper = boxes
    shape = points.shape[:-1]
    flat = points.reshape(-1, points.shape[-1])
    result = np.empty(len(flat), dtype=np.float64)
    # Blocks bound the (block, b) temporaries to about 32 MB.
    block = max(1, 4_000_000 // max(1, len(lower)))
    for start in range(0, len(flat), block):
        part = flat[start : start + block]
        volume = np.ones((len(part), len(lower)))
        for k in range(flat.shape[1]):
            volume *= np.maximum(upper[:, k] - np.maximum(lower[:, k], part[:, k, None]), 0.0)
        result[start : start + block] = volume.sum(axis=1)
    return result.reshape(shape)
