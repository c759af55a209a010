from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad

from predictors import GaussianProcessAccuracyPredictor, scores
from predictors.accuracy.gaussian_process import (
    _PRIOR_MEAN,
    _negative_log_posterior,
    _products,
    ordinal_encoding,
)
from predictors.features import cost_features, totals
from spaces.population import sample


@pytest.fixture(scope="module")
def truth(space):
    """Accuracy that saturates with capacity and with a positive effect of every choice."""

    def make(seed):
        rng = np.random.default_rng(seed)
        effects = np.abs(rng.normal(0, 0.1, len(space.names)))

        def accuracy(population):
            steps = population / np.maximum(space.cardinalities - 1, 1)
            capacity = totals(cost_features(space, population))[:, 0]
            return 0.988 - 0.15 * np.exp(1 - 0.5 * (capacity - 14) - steps @ effects)

        return accuracy

    return make


def fitted(space, accuracy, count, seed):
    rng = np.random.default_rng(seed)
    population = sample(space, count, rng)
    counted = rng.binomial(400, accuracy(population)) / 400
    return GaussianProcessAccuracyPredictor(space).fit(population, counted), sample(space, 400, rng)


def test_better_than_macs_and_better_with_more_samples(space, truth):
    by_count, by_macs = {}, []
    for count in (12, 200):
        found = []
        for seed in range(5):
            accuracy = truth(seed)
            predictor, held_out = fitted(space, accuracy, count, seed)
            target = accuracy(held_out)
            found.append(scores(target, *predictor.predict(held_out)))
            macs = totals(cost_features(space, held_out))[:, 0]
            by_macs.append(scores(target, macs)["spearman"])
        by_count[count] = {key: np.mean([f[key] for f in found]) for key in found[0]}
    assert by_count[12]["spearman"] > np.mean(by_macs)
    assert by_count[200]["spearman"] > max(0.88, by_count[12]["spearman"])
    assert by_count[200]["mape"] < by_count[12]["mape"]
    assert 0.8 < by_count[12]["coverage90"] <= 1
    assert 0.8 < by_count[200]["coverage90"] <= 1


def test_predictions_are_accuracies(space, truth):
    predictor, held_out = fitted(space, truth(0), 30, 0)
    mean, std = predictor.predict(held_out)
    assert ((mean >= 0) & (mean <= 1)).all()
    assert (std > 0).all()
    assert mean.shape == std.shape == (400,)


def test_uncertainty_is_smaller_where_it_was_measured(space, truth):
    accuracy = truth(1)
    predictor, _ = fitted(space, accuracy, 60, 1)
    population = sample(space, 60, np.random.default_rng(1))
    _, seen = predictor.predict(population)
    _, corner = predictor.predict(space.min_config().indices[None])
    assert corner[0] > np.median(seen)


def test_encoding_distance_counts_choice_steps(space):
    a = space.max_config().indices.copy()
    b = a.copy()
    b[space.position("resolution")] -= 2
    codes = ordinal_encoding(space, np.stack([a, b]))
    assert ((codes[0] - codes[1]) ** 2).sum() == 2


def test_gradient_of_the_likelihood(space):
    rng = np.random.default_rng(0)
    predictor = GaussianProcessAccuracyPredictor(space).fit(
        sample(space, 15, rng), rng.uniform(0.5, 0.9, 15)
    )
    products = _products(predictor._inputs, predictor._inputs)
    y = rng.normal(size=15)
    for theta in (_PRIOR_MEAN, _PRIOR_MEAN + rng.normal(0, 0.5, 5)):
        error = check_grad(
            lambda t: _negative_log_posterior(t, products, y)[0],
            lambda t: _negative_log_posterior(t, products, y)[1],
            theta,
        )
        assert error < 1e-4


def test_equal_accuracies_are_predicted_as_such(space):
    population = sample(space, 12, np.random.default_rng(0))
    mean, std = (
        GaussianProcessAccuracyPredictor(space)
        .fit(population, np.full(12, 0.97))
        .predict(population)
    )
    assert mean == pytest.approx(np.full(12, 0.97), abs=1e-6)
    assert np.isfinite(std).all()
