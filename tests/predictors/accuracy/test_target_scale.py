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
    target, step = np.array([0.0, 1.0]), 1e-2
    mean, std = scale.accuracy(target, np.full(2, step))
    shifted, _ = scale.accuracy(target + step, np.full(2, step))
    assert std == pytest.approx(shifted - mean, rel=0.05)
    # The same step is worth less where there is little error left.
    assert std[1] < std[0]


def test_what_is_predicted_is_an_accuracy():
    scale = TargetScale.of(np.array([0.7, 0.9, 0.95]))
    mean, std = scale.accuracy(np.array([-20.0, 0.0, 20.0]), np.ones(3))
    assert mean[[0, 2]].tolist() == [0.0, 1.0]
    assert 0.7 < mean[1] < 0.95
    assert (std > 0).all()
