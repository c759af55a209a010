"""Gaussian-process regression of accuracy on verified subnets.

Three kernels are added: a linear one on whole-network quantities (capacity explains most of the
accuracy), a linear one on the choices (each has an effect of its own), and a squared-exponential
one on the choices, so that subnets that differ in few steps are alike. Hyperparameters maximise the
marginal likelihood under weak priors (Rasmussen and Williams, 2006, chapter 5), which works from
about ten samples on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize

from predictors.accuracy.base import AccuracyPredictor
from predictors.accuracy.target_scale import TargetScale
from predictors.base import ACCURACY_PREDICTORS, FloatArray, Prediction
from predictors.features import cost_features, totals
from spaces.population import one_hot
from spaces.space import Population, SearchSpace

# Log of: variance by capacity, by single choices, by similarity, noise variance, all for targets of
# variance 1; and the length scale in choice steps. Centres and widths of normal priors.
_PRIOR_MEAN = np.log(np.array([0.3, 0.2, 0.2, 0.1, 6.0]))
_PRIOR_STD = np.array([1.5, 1.5, 1.5, 1.5, 0.7])


def ordinal_encoding(space: SearchSpace, population: Population) -> FloatArray:
    """Cumulative one-hot codes: a gene at choice k sets its first k + 1 bits, a skipped gene none.

    The squared distance of two rows is the number of choice steps between them, and a skipped block
    is one step below its smallest choice.

    Args:
        population: int16 (n, d).

    Returns:
        float64 (n, sum of cardinalities).
    """
    codes = one_hot(space, population).astype(np.float64)
    start = 0
    for size in space.cardinalities:
        block = codes[:, start : start + size]
        codes[:, start : start + size] = np.cumsum(block[:, ::-1], axis=1)[:, ::-1]
        start += size
    return codes


@dataclass(frozen=True)
class _Inputs:
    """What the kernels see of a population: quantities (n, 4), codes (n, c)."""

    quantities: FloatArray
    codes: FloatArray


@dataclass(frozen=True)
class _Products:
    """Inner products and squared distances between two sets of inputs, each (n, m)."""

    capacity: FloatArray
    choices: FloatArray
    squared: FloatArray


def _products(first: _Inputs, second: _Inputs) -> _Products:
    inner = first.codes @ second.codes.T
    norms = (first.codes**2).sum(axis=1)[:, None] + (second.codes**2).sum(axis=1)[None, :]
    width = first.codes.shape[1]
    return _Products(
        1.0 + first.quantities @ second.quantities.T,
        inner * (4.0 / width),
        np.maximum(norms - 2.0 * inner, 0.0),
    )


@ACCURACY_PREDICTORS.register("gaussian_process")
class GaussianProcessAccuracyPredictor(AccuracyPredictor):
    """Gaussian process on whole-network quantities and on choices; see this module."""

    name = "gaussian_process"
    min_samples = 8

    def _fit(self, population: Population, target: FloatArray) -> None:
        raw = totals(cost_features(self.space, population))
        self._centre, self._spread = raw.mean(axis=0), np.maximum(raw.std(axis=0), 1e-6)
        self._code_centre = ordinal_encoding(self.space, population).mean(axis=0)
        self._inputs = self._read(population)
        self._scale = TargetScale.of(target)
        y = self._scale(target)
        products = _products(self._inputs, self._inputs)
        found = minimize(
            _negative_log_posterior,
            _PRIOR_MEAN,
            args=(products, y),
            method="L-BFGS-B",
            jac=True,
            options={"maxiter": 50},
            bounds=[(m - 4 * s, m + 4 * s) for m, s in zip(_PRIOR_MEAN, _PRIOR_STD, strict=True)],
        )
        self._theta = np.asarray(found.x, dtype=np.float64)
        covariance = _covariance(self._theta, products)
        covariance[np.diag_indices(len(y))] += np.exp(self._theta[3])
        self._factor = np.linalg.cholesky(covariance)
        self._weights = np.asarray(cho_solve((self._factor, True), y), dtype=np.float64)

    def _predict(self, population: Population) -> Prediction:
        mean, std = np.empty(len(population)), np.empty(len(population))
        for start in range(0, len(population), 8192):
            part = slice(start, start + 8192)
            mean[part], std[part] = self._predict_block(population[part])
        return mean, std

    def _read(self, population: Population) -> _Inputs:
        raw = totals(cost_features(self.space, population))
        codes = ordinal_encoding(self.space, population) - self._code_centre
        return _Inputs((raw - self._centre) / self._spread, codes)

    def _predict_block(self, population: Population) -> Prediction:
        inputs = self._read(population)
        cross = _covariance(self._theta, _products(inputs, self._inputs))  # [n, samples]
        explained = solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
        by_capacity, by_choice, by_similarity, noise, _ = np.exp(self._theta)
        own = (
            by_capacity * (1.0 + (inputs.quantities**2).sum(axis=1))
            + by_choice * (4.0 / inputs.codes.shape[1]) * (inputs.codes**2).sum(axis=1)
            + by_similarity
            + noise
        )
        variance = np.maximum(own - (explained**2).sum(axis=0), noise)
        return self._scale.accuracy(cross @ self._weights, np.sqrt(variance))


def _kernels(theta: FloatArray, products: _Products) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The three summands (n, m) of the covariance of two sets of inputs."""
    by_capacity, by_choice, by_similarity, _, length = np.exp(theta)
    similarity: FloatArray = np.exp(products.squared / (-2.0 * length**2))
    return (
        by_capacity * products.capacity,
        by_choice * products.choices,
        by_similarity * similarity,
    )


def _covariance(theta: FloatArray, products: _Products) -> FloatArray:
    by_capacity, by_choice, by_similarity = _kernels(theta, products)
    return by_capacity + by_choice + by_similarity


def _negative_log_posterior(
    theta: FloatArray, products: _Products, y: FloatArray
) -> tuple[float, FloatArray]:
    """Negative log marginal likelihood plus log prior, and its gradient (5,)."""
    kernels = _kernels(theta, products)
    noise = np.exp(theta[3]) * np.eye(len(y))
    factor = np.linalg.cholesky(kernels[0] + kernels[1] + kernels[2] + noise)
    inverse = cho_solve((factor, True), np.eye(len(y)))
    weights = inverse @ y
    off = (theta - _PRIOR_MEAN) / _PRIOR_STD
    value = 0.5 * y @ weights + np.log(np.diag(factor)).sum() + 0.5 * off @ off
    slopes = (*kernels, noise, kernels[2] * products.squared / np.exp(2.0 * theta[4]))
    outer = np.outer(weights, weights) - inverse
    gradient = np.array([-0.5 * (outer * slope).sum() for slope in slopes]) + off / _PRIOR_STD
    return float(value), gradient
