"""Ridge regression of latency on cost features, for a device seen through a few measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from predictors.latency.base import (
    LATENCY_PREDICTORS,
    Arrays,
    LatencyPredictor,
    Prediction,
    State,
)
from predictors.latency.choices import choice_counts, count_names
from predictors.latency.configs import Amount, Configs, ConfigSchema, FloatArray
from predictors.latency.encoding import KERNEL_SUM
from predictors.latency.noise import LEAST_SCALE, OUTLIER, residual_scale, widened_noise
from predictors.sample_design import d_optimal

# Relative noise levels among which cross-validation chooses; the square is the ridge penalty.
_NOISE_LEVELS = np.geomspace(0.005, 0.5, 8)
_DIAGNOSTIC_LEVEL = 0.05
# Practically free: the overall speed is taken from the measurements.
_SPEED_VARIANCE = 100.0


# With measured kernels the costs only correct their sum: what lies between kernels, and caches.
_CORRECTION = 0.01


def prior_covariance(amounts: Sequence[Amount], speed: float = _SPEED_VARIANCE) -> FloatArray:
    """Prior covariance (f, f) of the rates of some amounts, relative to their nominal times.

    Rates of one device rise and fall together: a slow clock moves all of them, slow integer kernels
    all integer ones. So the prior is a sum over levels: all amounts, those with an equal label in
    one place (one kind of term, one operator, one precision), and the single amount.

    Args:
        amounts: The amounts.
        speed: Variance of what all rates have in common.
    """
    covariance = np.eye(len(amounts)) * 0.25
    for level in range(max((len(amount.labels) for amount in amounts), default=0)):
        labels = [a.labels[level] if level < len(a.labels) else f" {a.name}" for a in amounts]
        found = np.unique(labels, return_inverse=True)[1]
        covariance += 0.5 * (found[:, None] == found[None, :])
    return covariance + speed


def _kernel_precision(amounts: Sequence[Amount]) -> FloatArray:
    """Precision (f + 1, f + 1) of a prior where the last amount is the kernels' summed latency.

    That amount takes over the free overall speed; the others keep a speed of variance 1 in common.
    """
    count = len(amounts)
    precision = np.zeros((count + 1, count + 1))
    correction = prior_covariance(amounts, speed=1.0) * _CORRECTION
    precision[:-1, :-1] = np.linalg.inv(correction)
    precision[-1, -1] = 1.0 / _SPEED_VARIANCE
    return precision


@dataclass(frozen=True)
class _Samples:
    """Log latencies linearised at some latencies: rows (n, f) and log ratios to them (n,)."""

    rows: FloatArray
    logs: FloatArray

    def take(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> _Samples:
        return _Samples(self.rows[which], self.logs[which])

    def residuals(self, rates: FloatArray) -> FloatArray:
        """Log of measured over fitted latency (n,)."""
        residuals: FloatArray = self.logs - np.log(np.maximum(self.rows @ rates, 1e-3))
        return residuals


@dataclass(frozen=True)
class _Fit:
    """Rates (f,), nominal = 1, and the precision (f, f) of their posterior for unit noise."""

    rates: FloatArray
    precision: FloatArray

    @property
    def covariance(self) -> FloatArray:
        """Posterior covariance (f, f) for unit noise."""
        covariance: FloatArray = np.linalg.inv(self.precision).astype(np.float64)
        return covariance


@LATENCY_PREDICTORS.register("ridge")
class RidgeLatencyPredictor(LatencyPredictor):
    """Non-negative ridge regression of latency on summed layer costs.

    Latency is additive over layers, so it is modelled as a sum of amounts (see
    `predictors.features`) times rates that are not negative. Errors are relative. The penalty pulls
    the rates to one common speed and, level by level, to those of related amounts, which makes ten
    measurements enough for some sixty amounts; it is chosen by leaving samples out. Measurements
    far off what the others predict are given little weight. Other devices are not used.

    Where the latencies of single kernels are known, their sum (`KERNEL_SUM`) leads, and the others
    are left to correct it. Where a schema has no amounts, how often each choice occurs stands in
    for them.

    Args:
        schema: See `LatencyPredictor`.
    """

    name = "ridge"
    min_samples = 5
    folds = 12

    def __init__(self, schema: ConfigSchema) -> None:
        super().__init__(schema)
        costs = [amount for amount in schema.amounts if amount.name != KERNEL_SUM]
        self._kernels = len(costs) < len(schema.amounts)
        self._additive = [a.name for a in schema.amounts].index(KERNEL_SUM) if self._kernels else -1
        if not costs:
            costs = [Amount(name, 1.0) for name in count_names(schema)]
        covariance = prior_covariance(costs)
        self._root = np.linalg.cholesky(covariance)
        precision = _kernel_precision(costs) if self._kernels else np.linalg.inv(covariance)
        self._precision = precision.astype(np.float64)

    def _design(self, pool: Configs, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        parts = self._parts(pool)[:, : len(self._root)]
        # Relative errors: a row is the composition of a latency, whitened by the prior.
        rows = parts / _positive(parts.sum(axis=1))[:, None] @ self._root
        return d_optimal(rows, count, rng, ridge=0.05**2)

    def _fit(self, samples: Configs, latency: FloatArray) -> None:
        target = latency
        parts = self._parts(samples)
        costs = _positive(parts[:, : len(self._root)].sum(axis=1))
        self._unit = np.full(parts.shape[1], np.median(target / costs))
        if self._kernels:
            self._unit[-1] = np.median(target / _positive(parts[:, -1]))
        parts *= self._unit
        nominal = _positive(parts[:, -1] if self._kernels else parts.sum(axis=1))
        # Gauss-Newton on the logarithm, so that half and double are equally wrong: log(y) is
        # linearised at the last fit's latencies, at first those of the nominal device.
        rows = _linearised(parts, nominal, target)
        weights = _delete_one_weights(rows, self._precision)
        for _ in range(4):
            level, residual, leverage = self._cross_validate(rows, weights)
            far = np.abs(residual) / (OUTLIER * residual_scale(residual))
            weights = np.where(far > 1, np.maximum(far, 1.0) ** -2.0, 1.0)
            fit = _solve(rows, weights, level, self._precision)
            rows = _linearised(parts, _positive(parts @ fit.rates), target)
        self._rates, self._covariance = fit.rates, fit.covariance
        variance = float((weights * residual**2 / (1.0 + leverage)).sum())
        trusted = float(weights.sum())
        # The penalty was chosen to make these residuals small: a third of the samples count as
        # degrees of freedom.
        self._noise = widened_noise(variance, trusted, trusted / 3.0)

    def _cross_validate(
        self, samples: _Samples, weights: FloatArray
    ) -> tuple[float, FloatArray, FloatArray]:
        """Best noise level, with the left-out log residuals (n,) and leverages (n,) it gives."""
        count = len(weights)
        # Few samples are left out one by one, many in folds.
        fold = np.arange(count) % min(count, self.folds)
        folds = [fold == number for number in range(int(fold.max()) + 1)]

        def left_out(level: float) -> tuple[float, list[_Fit]]:
            fits = [
                _solve(samples.take(~out), weights[~out], level, self._precision) for out in folds
            ]
            score = 0.0
            for out, fit in zip(folds, fits, strict=True):
                squared = samples.take(out).residuals(fit.rates) ** 2
                score += float((weights[out] * np.minimum(squared, 1.0)).sum())
            return score, fits

        tried = [left_out(float(level)) for level in _NOISE_LEVELS]
        best = int(np.argmin([score for score, _ in tried]))
        residual, leverage = np.empty(count), np.empty(count)
        for out, fit in zip(folds, tried[best][1], strict=True):
            part = samples.take(out)
            residual[out] = part.residuals(fit.rates)
            leverage[out] = _leverage(part.rows, fit)
        return float(_NOISE_LEVELS[best]), residual, leverage

    def _predict(self, configs: Configs) -> Prediction:
        parts = self._parts(configs) * self._unit
        mean = np.maximum(parts @ self._rates, 1e-9)
        leverage = ((parts @ self._covariance) * parts).sum(axis=1) / mean**2
        return mean, mean * self._noise * np.sqrt(1.0 + np.maximum(leverage, 0.0))

    def _parts(self, configs: Configs) -> FloatArray:
        """Nominal ms (n, f) of every amount, and last, where there is one, of the kernels' sum."""
        if not configs.schema.amounts:
            return choice_counts(configs)
        parts = configs.amounts * configs.schema.nominal_ms
        if not self._kernels:
            return parts
        kernel_sum = parts[:, self._additive]
        return np.column_stack([np.delete(parts, self._additive, axis=1), kernel_sum])

    def _state(self) -> State:
        if not self._fitted:
            return {}, {}
        arrays = {"unit": self._unit, "rates": self._rates, "covariance": self._covariance}
        return {"noise": self._noise}, arrays

    def _restore(self, settings: Mapping[str, Any], arrays: Arrays) -> None:
        if settings:
            self._noise = float(settings["noise"])
            self._unit, self._rates = arrays["unit"], arrays["rates"]
            self._covariance = arrays["covariance"]


def _positive(values: FloatArray) -> FloatArray:
    """Values (n,) with a floor: a config may consist of operators that cost nothing."""
    return np.maximum(values, max(1e-3 * float(values.max()), 1e-12))


def _linearised(parts: FloatArray, latency: FloatArray, target: FloatArray) -> _Samples:
    return _Samples(parts / latency[:, None], np.log(target / latency))


def _leverage(rows: FloatArray, fit: _Fit) -> FloatArray:
    """Variance (n,) of fitted log latencies for unit noise, of rows (n, f) of parts."""
    scaled = rows / np.maximum(rows @ fit.rates, 1e-9)[:, None]
    leverage: FloatArray = ((scaled @ fit.covariance) * scaled).sum(axis=1)
    return np.maximum(leverage, 0.0)


def _delete_one_weights(samples: _Samples, precision: FloatArray) -> FloatArray:
    """Weights (n,) that all but remove one sample, if the others agree far better without it.

    Among few samples one outlier bends every left-out prediction, so its own residual does not
    stand out; deleting it does. Many samples need no such start.
    """
    count = len(samples.logs)
    weights = np.ones(count)
    if not 5 < count <= 24:
        return weights
    everyone = np.arange(count)

    def squared_residuals(kept: NDArray[np.int64]) -> FloatArray:
        found = np.empty(count)
        for out in everyone:
            others = kept[kept != out]
            fit = _solve(samples.take(others), weights[others], _DIAGNOSTIC_LEVEL, precision)
            found[out] = samples.take(everyone == out).residuals(fit.rates)[0] ** 2
        return found

    full = squared_residuals(everyone)
    # Only the worst few can be the culprit.
    for suspect in np.argsort(-full)[:4]:
        others = np.delete(everyone, suspect)
        squared = squared_residuals(others)
        left = max(float(squared[others].mean()), LEAST_SCALE**2)
        if left < 0.25 * full[others].mean() and squared[suspect] > OUTLIER**2 * left:
            weights[suspect] = left / squared[suspect]
            break
    return weights


def _solve(samples: _Samples, weights: FloatArray, level: float, precision: FloatArray) -> _Fit:
    """Non-negative minimiser of ``|rows w - 1 - logs|^2 + level^2 w P w``.

    Args:
        samples: Linearised log latencies.
        weights: (n,) of the squared errors.
        level: Relative noise that the penalty assumes.
        precision: P (f, f), of the prior.
    """
    weighted = samples.rows * weights[:, None]
    gram = weighted.T @ samples.rows + level**2 * precision
    # Normal equations as a square least-squares problem: L L^T = gram, |L^T w - b| with L b = rhs.
    lower = np.linalg.cholesky(gram)
    right = np.linalg.solve(lower, weighted.T @ (1.0 + samples.logs))
    rates, _ = nnls(lower.T, right)
    return _Fit(rates, gram)
