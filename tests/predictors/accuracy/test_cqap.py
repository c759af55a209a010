from __future__ import annotations

import numpy as np
import pytest

from predictors import CqapAccuracyPredictor, GaussianProcessAccuracyPredictor, scores
from predictors.accuracy.encoding import Part
from spaces.population import sample


class Unconditioned(CqapAccuracyPredictor):
    """CQAP that does not see the form."""

    parts = (Part.BITS, Part.ARCHITECTURE)


@pytest.fixture(scope="module")
def table(quantised_space, perceptron):
    """300 samples and 300 others: configs of mixed forms and bits, and their accuracies."""
    population = sample(quantised_space, 600, np.random.default_rng(0))
    return population, perceptron.accuracies(quantised_space, population)


def held_out(predictor, table, count):
    population, accuracy = table
    predictor.fit(population[:count], accuracy[:count])
    return scores(accuracy[300:], *predictor.predict(population[300:]))


def test_mixed_forms_are_ranked_and_the_form_helps(quantised_space, table):
    """Kendall's tau above 0.6 with 300 samples, and lower without the form (EQ-Net)."""
    conditioned = held_out(CqapAccuracyPredictor(quantised_space), table, 300)
    blind = held_out(Unconditioned(quantised_space), table, 300)
    assert conditioned["kendall"] > 0.6
    assert conditioned["kendall"] > blind["kendall"] + 0.03
    assert 0.8 < conditioned["coverage90"] <= 1


def test_the_samples_of_a_job_are_enough_to_keep_up_with_the_gaussian_process(
    quantised_space, table
):
    for count, least in ((12, 0.2), (60, 0.45)):
        network = held_out(CqapAccuracyPredictor(quantised_space), table, count)
        process = held_out(GaussianProcessAccuracyPredictor(quantised_space), table, count)
        assert network["kendall"] > max(least, process["kendall"] - 0.1)
