from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictors import TooFewSamplesError, d_optimal
from predictors.sample_design import i_optimal


def log_det(features, rows, ridge=1e-3):
    chosen = features[list(rows)]
    return np.linalg.slogdet(ridge * np.eye(features.shape[1]) + chosen.T @ chosen)[1]


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_near_the_best_of_all_subsets(seed, width, count):
    features = np.random.default_rng(seed).normal(size=(9, width))
    found = d_optimal(features, count, np.random.default_rng(0))
    assert len(set(found.tolist())) == count
    best = max(log_det(features, rows) for rows in itertools.combinations(range(9), count))
    # Exchanges end in a local optimum, within a known factor of the determinant.
    assert log_det(features, found) >= best - count * np.log(2)


def test_exchanges_beat_random_designs_and_repeat():
    features = np.random.default_rng(0).normal(size=(200, 30))
    found = d_optimal(features, 10, np.random.default_rng(1))
    assert found.tolist() == d_optimal(features, 10, np.random.default_rng(1)).tolist()
    rng = np.random.default_rng(2)
    random = [log_det(features, rng.choice(200, 10, replace=False)) for _ in range(200)]
    assert log_det(features, found) > max(random)


def test_identical_rows_are_no_information():
    features = np.repeat(np.eye(3), 5, axis=0)
    found = d_optimal(features, 3, np.random.default_rng(0))
    assert sorted(found // 5) == [0, 1, 2]


def test_errors():
    with pytest.raises(TooFewSamplesError, match="pool of 2"):
        d_optimal(np.eye(2), 3, np.random.default_rng(0))
    with pytest.raises(ValueError, match="finite"):
        d_optimal(np.array([[np.nan]]), 1, np.random.default_rng(0))


def test_i_optimal_mostly_finds_the_least_variance_of_all_subsets():
    excess = []
    for width, count, seed in itertools.product(range(1, 5), range(1, 4), range(25)):
        features = np.random.default_rng(seed).normal(size=(8, width))
        covariance = features @ features.T

        def left(rows, covariance=covariance):
            rows = list(rows)
            known = covariance[np.ix_(rows, rows)] + 0.1 * np.eye(len(rows))
            explained = covariance[:, rows] @ np.linalg.solve(known, covariance[rows])
            return np.trace(covariance - explained)

        found = i_optimal(covariance, 0.1, count)
        assert len(set(found.tolist())) == count
        for place, row in itertools.product(range(count), set(range(8)) - set(found)):
            exchanged = [*np.delete(found, place), row]
            assert left(found) <= left(exchanged) + 1e-9, "an exchange is better"
        every = [left(rows) for rows in itertools.combinations(range(8), count)]
        excess.append((left(found) - min(every)) / (np.mean(every) - min(every) + 1e-9))
    # Where no exchange is better two at once may be: rarely, and by little.
    assert np.mean(np.array(excess) < 1e-6) > 0.95
    assert np.mean(excess) < 0.005


def test_i_optimal_spends_samples_on_what_is_wanted():
    # Two groups that say nothing about each other.
    features = np.repeat(np.eye(2), 5, axis=0)
    found = i_optimal(features @ features.T, 0.1, 2, wanted=np.arange(5, 10))
    assert (found >= 5).all()
    with pytest.raises(TooFewSamplesError, match="pool of 10"):
        i_optimal(features @ features.T, 0.1, 11)
    with pytest.raises(ValueError, match="noise must be above 0"):
        i_optimal(features @ features.T, 0.0, 1)
