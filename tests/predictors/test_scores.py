from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from predictors import TooFewSamplesError, kendall, scores, spearman

values = st.integers(3, 20).flatmap(
    lambda n: st.tuples(
        *[arrays(np.float64, n, elements=st.integers(0, 6).map(float)) for _ in range(2)]
    )
)


@given(values)
def test_rank_correlations_equal_scipy(pair):
    a, b = pair
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert spearman(a, b) == kendall(a, b) == 0.0
        return
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert kendall(a, b) == pytest.approx(stats.kendalltau(a, b).statistic)


def test_mape_and_coverage_by_hand():
    found = scores(np.array([1.0, 2.0]), np.array([1.1, 1.0]), np.array([0.1, 0.1]))
    assert found["mape"] == pytest.approx(30.0)
    assert found["coverage90"] == 0.5
    assert "coverage90" not in scores(np.array([1.0, 2.0]), np.array([1.0, 2.0]))


def test_coverage_of_a_calibrated_prediction():
    rng = np.random.default_rng(0)
    std = np.exp(rng.normal(0, 1, 4000))
    found = scores(10 + std * rng.normal(size=4000), np.full(4000, 10.0), std)
    assert found["coverage90"] == pytest.approx(0.9, abs=0.015)


def test_two_samples_at_least():
    with pytest.raises(TooFewSamplesError):
        scores(np.array([1.0]), np.array([1.0]))
