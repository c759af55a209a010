from __future__ import annotations

import numpy as np
import pytest

from predictors.accuracy.target_scale import TargetScale


def test_back_and_forth():
    accuracy = np.array([0.0, 0.3, 0.9, 0.97, 0.99, 1.0])
    scale = TargetScale.of(accuracy)
    target = scale(accuracy)
    assert (target.mean(), target.std()) == pytest.approx((0, 1))
    assert (np.diff(target) > 0).all()
    back, _ = scale.accuracy(target, np.full(6, 0.1))
    assert back == pytest.approx(accuracy)


def test_an_error_of_the_target_becomes_one_of_the_accuracy():
    scale = TargetScale.of(np.array([0.5, 0.8, 0.9, 0.95]))
    mean, std = scale.accuracy(np.array([0.0, 1.0]), np.full(2, 1e-3))
    shifted, _ = scale.accuracy(np.array([1e-3, 1.001]), np.full(2, 1e-3))
    assert std == pytest.approx(shifted - mean, rel=1e-2)
    # The same step is worth less where there is little error left.
    assert std[1] < std[0]


def test_what_is_predicted_is_an_accuracy():
    scale = TargetScale.of(np.full(5, 0.9))
    mean, std = scale.accuracy(np.array([-1e6, 0.0, 1e6]), np.ones(3))
    assert mean == pytest.approx([0.0, 0.9, 1.0])
    assert (std > 0).all()
