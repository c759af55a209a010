from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from search import pareto

# Few distinct values on purpose: ties and duplicates are where sorting goes wrong.
points = st.integers(1, 3).flatmap(
    lambda m: st.integers(1, 14).flatmap(
        lambda n: arrays(np.float64, (n, m), elements=st.integers(0, 5).map(float))
    )
)


def dominates(a, b, va=0.0, vb=0.0):
    if va > 0 or vb > 0:
        return va < vb
    return bool(np.all(a <= b) and np.any(a < b))


def brute_ranks(objectives, violation):
    remaining, ranks, rank = set(range(len(objectives))), {}, 0
    while remaining:
        front = [
            j
            for j in remaining
            if not any(
                dominates(objectives[i], objectives[j], violation[i], violation[j])
                for i in remaining
            )
        ]
        for j in front:
            ranks[j] = rank
        remaining -= set(front)
        rank += 1
    return [ranks[i] for i in range(len(objectives))]


def grid_volume(objectives, reference):
    """Volume on the integer grid: count unit cells whose lower corner a point dominates."""
    axes = [np.arange(int(r)) for r in reference]
    cells = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(reference))
    return sum(bool((objectives <= cell).all(axis=1).any()) for cell in cells)


@given(points, st.data())
@settings(max_examples=150, deadline=None)
def test_ranks_equal_brute_force_with_and_without_violations(objectives, data):
    n = len(objectives)
    assert pareto.non_dominated_sort(objectives).tolist() == brute_ranks(objectives, np.zeros(n))
    violation = data.draw(
        arrays(np.float64, n, elements=st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.0]))
    )
    expected = brute_ranks(objectives, violation)
    assert pareto.non_dominated_sort(objectives, violation).tolist() == expected
    front = pareto.non_dominated(objectives, violation)
    assert front.tolist() == [rank == 0 for rank in expected]


def test_when_nothing_is_feasible_the_closest_is_first():
    objectives = np.array([[0.0, 0.0], [5.0, 5.0], [1.0, 1.0]])
    order = pareto.best_order(objectives, np.array([3.0, 0.1, 1.0]))
    assert order.tolist() == [1, 2, 0]


@given(points)
@settings(max_examples=100, deadline=None)
def test_hypervolume_equals_cell_counting(objectives):
    reference = np.full(objectives.shape[1], 6.0)
    assert pareto.hypervolume(objectives, reference) == grid_volume(objectives, reference)


@given(points)
@settings(max_examples=100, deadline=None)
def test_improvement_is_the_difference_of_hypervolumes(objectives):
    reference = np.full(objectives.shape[1], 6.0)
    new, old = objectives[0], objectives[1:]
    boxes = pareto.non_dominated_boxes(old, reference)
    gain = pareto.hypervolume(objectives, reference) - pareto.hypervolume(old, reference)
    assert pareto.improvement(new, boxes) == pytest.approx(gain)


def test_hypervolume_of_four_objectives_equals_cell_counting():
    objectives = np.random.default_rng(0).integers(0, 4, (6, 4)).astype(float)
    reference = np.full(4, 4.0)
    assert pareto.hypervolume(objectives, reference) == grid_volume(objectives, reference)


def test_points_beyond_the_reference_count_nothing():
    reference = np.array([1.0, 1.0])
    assert pareto.hypervolume(np.array([[0.0, 1.0], [2.0, -5.0]]), reference) == 0.0
    assert pareto.hypervolume(np.empty((0, 2)), reference) == 0.0


def test_crowding_by_hand_and_per_front():
    front = np.array([[0.0, 4.0], [1.0, 2.0], [3.0, 1.0], [4.0, 0.0]])
    distance = pareto.crowding_distance(front, np.zeros(4, dtype=np.int64))
    assert np.isinf(distance[[0, 3]]).all()
    assert distance[1] == pytest.approx(3 / 4 + 3 / 4)
    assert distance[2] == pytest.approx(3 / 4 + 2 / 4)
    both = np.concatenate([front, front + 10])
    ranks = np.repeat([0, 1], 4)
    stacked = pareto.crowding_distance(both, ranks)
    assert np.array_equal(stacked[:4], distance)
    assert np.array_equal(stacked[4:], distance)


def test_best_order_prefers_the_lonely_point_of_a_front():
    objectives = np.array([[0.0, 4.0], [1.9, 2.1], [2.0, 2.0], [2.1, 1.9], [4.0, 0.0], [5.0, 5.0]])
    order = pareto.best_order(objectives).tolist()
    assert set(order[:2]) == {0, 4}
    assert order[-1] == 5


def test_no_objective_is_an_error():
    with pytest.raises(ValueError, match="at least one objective"):
        pareto.non_dominated_sort(np.empty((2, 0)))
