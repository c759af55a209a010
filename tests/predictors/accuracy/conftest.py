from __future__ import annotations

import pytest

from tests.predictors.accuracy.perceptron import TrainedPerceptron, perceptron_space


@pytest.fixture(scope="session")
def perceptron():
    return TrainedPerceptron()


@pytest.fixture(scope="session")
def quantised_space():
    return perceptron_space()
