"""What other devices would take for any config, and how a new device resembles them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from predictors.latency.configs import Configs, FloatArray
from predictors.latency.inputs import InputEncoding
from predictors.latency.tables import LatencyTables

# A regression reads at most so many rows of a table: its cost is cubic in them.
_MOST_ROWS = 1000
# Penalties among which leaving rows out chooses, relative to the kernel's mean diagonal.
_PENALTIES = np.geomspace(1e-5, 1e-1, 9)

# Prior of a new device's log latencies, in units of the other devices' spread.
_RESEMBLANCE = 0.5
_NOISE = 0.15
_LEVEL_VARIANCE = 1e4
# A measurement so far from what the others predict is taken for a disturbance: in units of the
# others' errors, and at least this factor.
_OUTLIER = 5.0
_LEAST_OUTLIER = float(np.log(2.0))


@dataclass(frozen=True)
class DeviceModels:
    """A regression of log latency for each device of a table.

    Kernel ridge regression with a quadratic kernel, so that pairs of choices may interact; the
    penalty of each device is chosen by leaving rows out. It smooths the noise of the table, fills
    its gaps and extends it to configs that were not measured.

    Attributes:
        devices: Names of the devices, D of them.
        encoding: Configs -> inputs.
        inputs: (p, i) of the rows that were read.
        weights: (p, D) of the kernel to these rows.
        level: (D,) mean log latency in ms.
    """

    devices: tuple[str, ...]
    encoding: InputEncoding
    inputs: FloatArray
    weights: FloatArray
    level: FloatArray

    @classmethod
    def of(cls, tables: LatencyTables) -> Self:
        """Regressions of the devices of a table."""
        encoding = InputEncoding.of(tables.configs)
        rows = tables.configs.distinct()
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MOST_ROWS)).astype(np.int64)]
        inputs = encoding(tables.configs.take(rows))
        kernel = _kernel(inputs, inputs)
        logs = np.log(np.stack([tables.latencies[d][rows] for d in tables.devices], axis=1))
        known = ~np.isnan(logs)
        # A device that was measured on none of these rows is a constant to the others.
        level = np.array([logs[k, d].mean() if k.any() else 0.0 for d, k in enumerate(known.T)])
        weights = np.zeros(logs.shape)
        patterns, pattern = np.unique(known, axis=1, return_inverse=True)
        for number, seen in enumerate(patterns.T):
            which = np.flatnonzero(pattern.reshape(-1) == number)
            if seen.any():
                solved = _solve(kernel[np.ix_(seen, seen)], logs[np.ix_(seen, which)], level[which])
                weights[np.ix_(seen, which)] = solved
        return cls(tables.devices, encoding, inputs, weights, level)

    def __call__(self, configs: Configs) -> FloatArray:
        """Log of the latencies in ms (n, D)."""
        found = np.empty((len(configs), len(self.devices)))
        # Blocks bound the (block, p) kernel to some tens of megabytes.
        for start in range(0, len(configs), 4096):
            block = slice(start, start + 4096)
            inputs = self.encoding(configs.take(np.arange(len(configs))[block]))
            found[block] = self.level + _kernel(inputs, self.inputs) @ self.weights
        return found

    def state(self) -> dict[str, NDArray[Any]]:
        """Arrays for `restore`; the names of the devices are not among them."""
        return {
            **self.encoding.state(),
            "models.inputs": self.inputs,
            "models.weights": self.weights,
            "models.level": self.level,
        }

    @classmethod
    def restore(cls, devices: tuple[str, ...], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """What `state` described.

        Raises:
            KeyError: An array is missing.
        """
        return cls(
            devices,
            InputEncoding.restore(arrays),
            arrays["models.inputs"],
            arrays["models.weights"],
            arrays["models.level"],
        )


def _kernel(first: FloatArray, second: FloatArray) -> FloatArray:
    """Quadratic kernel (n, m) of inputs (n, i) and (m, i)."""
    kernel: FloatArray = (1.0 + first @ second.T / first.shape[1] * 4.0) ** 2
    return kernel


def _solve(kernel: FloatArray, logs: FloatArray, level: FloatArray) -> FloatArray:
    """Kernel weights (p, d) of log latencies (p, d), each column with its own best penalty."""
    values, vectors = np.linalg.eigh(kernel)
    values = np.maximum(values, 0.0)
    rotated = vectors.T @ (logs - level)
    best = np.full(logs.shape[1], np.inf)
    weights = np.zeros(logs.shape)
    for penalty in _PENALTIES * values.sum() / len(kernel):
        inverse = 1.0 / (values + penalty)
        found = vectors @ (inverse[:, None] * rotated)
        # Leaving a row out of a kernel ridge: its weight over the inverse's diagonal.
        left_out = ((found / ((vectors**2) @ inverse)[:, None]) ** 2).mean(axis=0)
        better = left_out < best
        weights[:, better] = found[:, better]
        best = np.minimum(best, left_out)
    return weights


@dataclass(frozen=True)
class Resemblance:
    """Log latency of a new device as a combination of other devices', from few measurements.

    A Gaussian process whose mean is the other devices' mean and whose covariance is that of a
    combination of them, with a free overall speed. Measurements far off what the others predict
    are left aside.

    Attributes:
        models: The other devices.
        features: (n, D) of the measurements: the other devices' log latencies.
        weights: (n,) of the process.
        kept: bool (n,), False for a measurement that was left aside.
        left_out: (n,) log latency in ms that the other kept measurements predict for each.
    """

    models: DeviceModels
    features: FloatArray
    weights: FloatArray
    kept: NDArray[np.bool_]
    left_out: FloatArray

    @classmethod
    def of(cls, models: DeviceModels, samples: Configs, logs: FloatArray) -> Self:
        """Compare measurements with the models.

        Args:
            models: Of the other devices.
            samples: The measured configs, n at least 3.
            logs: (n,) logarithms of the latencies in ms.
        """
        features = models(samples) - models.level
        kept = np.ones(len(logs), dtype=np.bool_)
        left_out = _left_out(features, logs, kept)
        # One disturbed measurement bends what is predicted for all others, so the worst is judged
        # by how well they agree without it.
        for _ in range(max(1, len(logs) // 6)):
            suspect = int(np.argmax(np.where(kept, np.abs(logs - left_out), -1.0)))
            without = kept.copy()
            without[suspect] = False
            if without.sum() < 3:
                break
            others = _left_out(features, logs, without)
            errors = np.abs(logs - others)
            scale = 1.4826 * float(np.median(errors[without]))
            if errors[suspect] < max(_OUTLIER * scale, _LEAST_OUTLIER):
                break
            kept, left_out = without, others
        weights = np.zeros(len(logs))
        weights[kept] = _process(features[kept], logs[kept])[0]
        return cls(models, features, weights, kept, left_out)

    def __call__(self, configs: Configs) -> FloatArray:
        """Log latency in ms (n,)."""
        features = self.models(configs) - self.models.level
        predicted: FloatArray = (
            features.mean(axis=1) + _covariance(features, self.features) @ self.weights
        )
        return predicted


def _covariance(first: FloatArray, second: FloatArray) -> FloatArray:
    covariance: FloatArray = _LEVEL_VARIANCE + _RESEMBLANCE * (first @ second.T) / first.shape[1]
    return covariance


def _process(features: FloatArray, logs: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weights (n,) of the process, and each one's own log latency from the others (n,)."""
    variance = _NOISE**2 * max(float(features.var()), 1e-6)
    inverse = np.linalg.inv(_covariance(features, features) + variance * np.eye(len(logs)))
    weights = inverse @ (logs - features.mean(axis=1))
    return weights, logs - weights / np.diag(inverse)


def _left_out(features: FloatArray, logs: FloatArray, kept: NDArray[np.bool_]) -> FloatArray:
    """Log latencies (n,) predicted from the kept measurements, each without itself."""
    weights, found = _process(features[kept], logs[kept])
    predicted: FloatArray = features.mean(axis=1) + _covariance(features, features[kept]) @ weights
    predicted[kept] = found
    return predicted
