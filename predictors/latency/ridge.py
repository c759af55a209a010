"""Ridge regression of latency on cost features, for a device seen through a few measurements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.special import stdtrit

from predictors.base import LATENCY_PREDICTORS, FloatArray, LatencyPredictor, Prediction
from predictors.errors import TooFewSamplesError
from predictors.features import FEATURES, NOMINAL_MS, cost_features
from predictors.sample_design import d_optimal
from predictors.scores import Z90
from spaces.population import hashes
from spaces.space import Population

# Relative noise levels among which cross-validation chooses; the square is the ridge penalty.
_NOISE_LEVELS = np.geomspace(0.003, 0.6, 12)
# Relative error below which a measurement is never suspected of being an outlier.
_LEAST_SCALE = 0.01
_OUTLIER = 4.0
_LEAST_NOISE = 0.003


def prior_covariance() -> FloatArray:
    """Prior covariance (f, f) of the rates of `FEATURES`, relative to their nominal times.

    Rates of one device rise and fall together: a slow clock moves all of them, slow integer kernels
    all integer ones. So the prior is a sum over levels: all features, those of one kind of term, of
    one precision, of one operator, and the single feature.
    """
    covariance = np.eye(len(FEATURES)) * 0.25
    for level, variance in (("term", 0.5), ("precision", 0.5), ("operator", 0.5)):
        labels = np.array([getattr(feature, level) for feature in FEATURES])
        covariance += variance * (labels[:, None] == labels[None, :])
    # Practically free: the overall speed is taken from the measurements.
    return covariance + 100.0


_PRIOR = prior_covariance()
_PRECISION = np.linalg.inv(_PRIOR)
_PRIOR_ROOT = np.linalg.cholesky(_PRIOR)


@dataclass(frozen=True)
class _Fit:
    """Rates (f,), nominal = 1, and their posterior covariance (f, f) for unit noise."""

    rates: FloatArray
    covariance: FloatArray


@LATENCY_PREDICTORS.register("ridge")
class RidgeLatencyPredictor(LatencyPredictor):
    """Non-negative ridge regression of latency on summed layer costs.

    Latency is additive over layers, so it is modelled as a sum of features (see
    `predictors.features`) times rates that are not negative. Errors are relative. The penalty pulls
    the rates to one common speed and, level by level, to those of related features, which makes ten
    measurements enough for some sixty features; it is chosen by leaving samples out. Measurements
    far off what the others predict are given little weight.
    """

    name = "ridge"
    min_samples = 5
    folds = 12

    def choose(self, pool: Population, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        _, first = np.unique(hashes(self.space, pool), return_index=True)
        if count > len(first):
            raise TooFewSamplesError(
                f"{count} configs to measure were asked of a pool of {len(first)} different ones"
            )
        first = np.sort(first)
        parts = cost_features(self.space, pool[first]) * NOMINAL_MS
        # Relative errors: a row is the composition of a latency, whitened by the prior.
        rows = parts / parts.sum(axis=1, keepdims=True) @ _PRIOR_ROOT
        return first[d_optimal(rows, count, rng, ridge=0.05**2)].astype(np.int64)

    def _fit(self, population: Population, target: FloatArray) -> None:
        parts = cost_features(self.space, population) * NOMINAL_MS
        self._unit = float(np.median(target / parts.sum(axis=1)))
        rows = parts * self._unit / target[:, None]
        weights = np.ones(len(target))
        for _ in range(4):
            level, residual, leverage = self._cross_validate(rows, weights)
            scale = max(_LEAST_SCALE, 1.4826 * float(np.median(np.abs(residual))))
            far = np.abs(residual) / (_OUTLIER * scale)
            weights = np.where(far > 1, np.maximum(far, 1.0) ** -2.0, 1.0)
        fit = _solve(rows, weights, level)
        self._rates, self._covariance = fit.rates, fit.covariance
        trust = weights / weights.sum()
        noise = float(np.sqrt((trust * residual**2 / (1.0 + leverage)).sum()))
        # With few samples the noise itself is uncertain, and the penalty was chosen to make these
        # residuals small: Student's quantile, with a third of the samples as degrees of freedom,
        # widens so that 90 % intervals hold.
        freedom = max(2.0, float(weights.sum()) / 3.0)
        self._noise = max(_LEAST_NOISE, noise) * float(stdtrit(freedom, 0.95)) / Z90

    def _cross_validate(
        self, rows: FloatArray, weights: FloatArray
    ) -> tuple[float, FloatArray, FloatArray]:
        """Best noise level, with the left-out log residuals (n,) and leverages (n,) it gives."""
        count = len(rows)
        # Few samples are left out one by one, many in folds.
        fold = np.arange(count) % (count if count <= 2 * self.folds else self.folds)
        best: tuple[float, float, FloatArray, FloatArray] | None = None
        for level in _NOISE_LEVELS:
            residual, leverage = np.empty(count), np.empty(count)
            for number in range(int(fold.max()) + 1):
                out = fold == number
                fit = _solve(rows[~out], weights[~out], float(level))
                predicted = np.maximum(rows[out] @ fit.rates, 1e-3)
                residual[out] = -np.log(predicted)
                scaled = rows[out] / predicted[:, None]
                leverage[out] = np.einsum("ij,jk,ik->i", scaled, fit.covariance, scaled)
            score = float((weights * np.minimum(residual**2, 1.0)).sum())
            if best is None or score < best[0]:
                best = (score, float(level), residual, leverage)
        assert best is not None
        return best[1:]

    def _predict(self, population: Population) -> Prediction:
        parts = cost_features(self.space, population) * (NOMINAL_MS * self._unit)
        mean = np.maximum(parts @ self._rates, 1e-9)
        scaled = parts / mean[:, None]
        leverage = ((scaled @ self._covariance) * scaled).sum(axis=1)
        return mean, mean * self._noise * np.sqrt(1.0 + np.maximum(leverage, 0.0))

    def _state(self) -> dict[str, FloatArray]:
        return {
            "rates": self._rates,
            "covariance": self._covariance,
            "scalars": np.array([self._unit, self._noise]),
        }

    def _restore(self, arrays: dict[str, FloatArray]) -> None:
        self._rates, self._covariance = arrays["rates"], arrays["covariance"]
        self._unit, self._noise = map(float, arrays["scalars"])


def _solve(rows: FloatArray, weights: FloatArray, level: float) -> _Fit:
    """Non-negative minimiser of ``|rows w - 1|^2 + level^2 w P w`` and the covariance of w.

    Args:
        rows: (n, f) nominal parts of a latency, divided by the measured latency.
        weights: (n,) of the squared errors.
        level: Relative noise that the penalty assumes.
    """
    weighted = rows * weights[:, None]
    gram = weighted.T @ rows + level**2 * _PRECISION
    # Normal equations as a square least-squares problem: R^T R = gram, R^T b = rows^T 1.
    lower = np.linalg.cholesky(gram)
    right = np.linalg.solve(lower, weighted.sum(axis=0))
    rates, _ = nnls(lower.T, right)
    return _Fit(rates, np.linalg.inv(gram))
