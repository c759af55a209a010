from __future__ import annotations

import numpy as np
import pytest

from predictors.latency.averaging import AveragedProcess
from predictors.latency.evidence import most_likely_weights

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(60, 3))


def kernels(first, second):
    """Linear in the first feature, and in the other two."""
    return np.stack([first[:, :1] @ second[:, :1].T, first[:, 1:] @ second[:, 1:].T])


def prior(rows):
    return np.stack([rows[:, 0] ** 2, (rows[:, 1:] ** 2).sum(axis=1)])


HYPOTHESES = np.log([[1.0, 1e-4, 0.01], [1e-4, 1.0, 0.01]])
EXPECTED = np.log([0.3, 0.3, 0.02])


def fitted(target, rows):
    return AveragedProcess.of(kernels(rows, rows), target, HYPOTHESES, EXPECTED)


def predicted(process, rows, samples):
    across = kernels(rows, samples)
    mean = process.level + np.einsum("jmn,jn->m", across, process.coefficients)
    return mean, process.variance(across, prior(rows), mean)


def test_the_hypothesis_that_explains_the_samples_takes_over():
    samples, rest = FEATURES[:10], FEATURES[10:]
    for truth in (lambda x: 0.8 * x[:, 0], lambda x: 0.5 * x[:, 1] - 0.7 * x[:, 2]):
        process = fitted(truth(samples), samples)
        mean, variance = predicted(process, rest, samples)
        assert np.abs(mean - truth(rest)).mean() < 0.1 * np.abs(truth(rest)).mean()
        assert (variance > 0).all()


def test_intervals_hold_for_devices_drawn_from_the_hypotheses():
    covered = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        weights = rng.normal(size=3) * ([1, 0, 0] if seed % 2 else [0, 1, 1])
        noise = rng.normal(0, 0.1, 60)
        target = FEATURES @ weights + noise
        mean, variance = predicted(fitted(target[:10], FEATURES[:10]), FEATURES[10:], FEATURES[:10])
        covered.append(np.abs(target[10:] - mean) < 1.645 * np.sqrt(variance))
    assert 0.85 < np.mean(covered) < 0.98


@pytest.mark.parametrize("count", [10, 40])
def test_a_disturbed_sample_counts_for_nothing(count):
    samples, rest = FEATURES[:count], FEATURES[40:]
    target = samples[:, 0] + RNG.normal(0, 0.05, count)
    wild = target.copy()
    wild[4] += 30.0
    clean = predicted(fitted(target, samples), rest, samples)[0]
    disturbed = predicted(fitted(wild, samples), rest, samples)[0]
    assert np.abs(disturbed - clean).max() < 0.25


def test_uncertainty_grows_away_from_the_samples():
    near = FEATURES[:10]
    process = fitted(near[:, 0], near)
    far = 8.0 * near
    assert predicted(process, far, near)[1].mean() > 2.0 * predicted(process, near, near)[1].mean()


def test_weights_of_a_simulated_process_are_found():
    rows = np.random.default_rng(1).normal(size=(200, 3))
    linear = kernels(rows, rows)
    covariance = 2.0 * linear[0] + 0.05 * linear[1] + 0.1 * np.eye(200)
    target = np.linalg.cholesky(covariance) @ np.random.default_rng(8).normal(size=200)
    start = np.log([0.3, 0.3, 0.3])
    found = most_likely_weights(list(linear), target, start, steps=100)
    assert found[2] == pytest.approx(np.log(0.1), abs=0.3)
    assert found[0] > found[1]

    def likelihood(logs):
        weights = np.exp(logs)
        whole = weights[0] * linear[0] + weights[1] * linear[1] + (weights[2] + 1e-4) * np.eye(200)
        return -0.5 * (target @ np.linalg.solve(whole, target) + np.linalg.slogdet(whole)[1])

    best = likelihood(found)
    for place in range(3):
        for step in (-0.3, 0.3):
            assert likelihood(found + step * np.eye(3)[place]) < best
    # A narrow prior keeps a weight where it is.
    kept = most_likely_weights(list(linear), target, start, start, np.full(3, 1e-3), 100)
    assert kept == pytest.approx(start, abs=0.01)
