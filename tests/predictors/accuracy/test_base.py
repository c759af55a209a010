from __future__ import annotations

import numpy as np
import pytest

from predictors import (
    ACCURACY_PREDICTORS,
    InvalidTargetError,
    NotFittedError,
    TableError,
    TooFewSamplesError,
)
from spaces.population import sample

NAMES = ("cqap", "gaussian_process", "transfer")


def test_what_a_job_may_name():
    assert ACCURACY_PREDICTORS.names() == list(NAMES)
    for name in NAMES:
        assert ACCURACY_PREDICTORS.get(name).name == name


@pytest.mark.parametrize("name", NAMES)
def test_bad_targets_are_typed_errors(space, name):
    population = sample(space, 12, np.random.default_rng(0))
    predictor = ACCURACY_PREDICTORS.get(name)(space)
    with pytest.raises(InvalidTargetError, match="allowed: 0 to 1"):
        predictor.fit(population, np.full(12, 97.0))
    with pytest.raises(InvalidTargetError, match="must be finite"):
        predictor.fit(population, np.full(12, np.nan))
    with pytest.raises(InvalidTargetError, match="12 configs but targets of shape"):
        predictor.fit(population, np.full(11, 0.9))
    with pytest.raises(TooFewSamplesError, match="at least 8"):
        predictor.fit(population[:7], np.full(7, 0.9))
    with pytest.raises(TooFewSamplesError, match="at least 8"):
        predictor.fit(population[[0] * 20], np.full(20, 0.9))
    with pytest.raises(NotFittedError):
        predictor.predict(population)


@pytest.mark.parametrize("name", NAMES)
def test_configs_of_another_space_are_typed_errors(space, quantised_space, name):
    rng = np.random.default_rng(0)
    population, other = sample(space, 12, rng), sample(quantised_space, 12, rng)
    predictor = ACCURACY_PREDICTORS.get(name)(space)
    target = rng.uniform(0.5, 0.9, 12)
    with pytest.raises(TableError, match=f"has {len(space.names)} dimensions"):
        predictor.fit(other, target)
    predictor.fit(population, target)
    with pytest.raises(TableError, match="dimensions"):
        predictor.predict(other)
    for wrong in (-1, 99):
        outside = population.copy()
        outside[3, space.position("stage1.depth")] = wrong
        with pytest.raises(TableError, match=f"config number 3 has index {wrong} of stage1.depth"):
            predictor.predict(outside)
    assert all(len(part) == 0 for part in predictor.predict(population[:0]))


@pytest.mark.parametrize("name", NAMES)
def test_from_eight_samples_on_there_is_an_accuracy_with_an_uncertainty(space, name):
    rng = np.random.default_rng(0)
    population = sample(space, 8, rng)
    mean, std = (
        ACCURACY_PREDICTORS.get(name)(space)
        .fit(population, rng.uniform(0.9, 1.0, 8))
        .predict(sample(space, 300, rng))
    )
    assert mean.shape == std.shape == (300,)
    assert ((mean >= 0) & (mean <= 1) & (std > 0) & np.isfinite(std)).all()
