"""The default latency predictor: Gaussian processes that learn from a table how devices differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictors.latency.averaging import AveragedProcess
from predictors.latency.base import (
    LATENCY_PREDICTORS,
    Arrays,
    LatencyPredictor,
    Prediction,
    State,
)
from predictors.latency.blocks import Blocks, FeatureBlocks
from predictors.latency.configs import Configs, ConfigSchema, FloatArray
from predictors.latency.device_functions import DeviceFunctions
from predictors.latency.encoding import KERNEL_SUM
from predictors.latency.resemblance import (
    DEVICES,
    EXPONENTIAL,
    DeviceFactors,
    expected_weights,
    kernel,
    kernel_names,
    learnt_weights,
    structures,
)
from predictors.latency.ridge import RidgeLatencyPredictor
from predictors.latency.setting import AdaptiveSetting
from predictors.latency.tables import LatencyTables
from predictors.sample_design import i_optimal

_DESIGN_LEVEL = 1.0
_MOST_CANDIDATES = 1500
# What is neither among the fastest nor among the slowest tenth is to be predicted well.
_MIDDLE = 0.1
_SPREAD = 0.3
_LEAST_SHARE = 0.01
# Left-out samples are no independent trials, since the rest is the same.
_FOLDS, _TEMPER, _LEAST_LIKELIHOOD = 5, 0.5, -5.0
_BLOCK = 1024


@LATENCY_PREDICTORS.register("adaptive")
class AdaptiveLatencyPredictor(LatencyPredictor):
    """Gaussian processes on what other devices took, averaged over hypotheses learnt from them.

    What `learn` finds in the tables of other devices: a smooth latency function of each
    (`DeviceFunctions`), the few factors along which these vary, and for each device, taken for an
    unseen one, how much of its latency those factors, the counts of its choices, their costs and
    single choices explained, and how noisy it was (`resemblance`). A new device's latency is a
    process with a kernel for each of these; its weights are not chosen but averaged over, by the
    marginal likelihood of the samples under weights near every device's of the table
    (`AveragedProcess`), so that its complexity follows the samples. Any sample may be a disturbed
    one. The configs to measure are those that leave the least variance when any of the kernels may
    be the one that counts.

    Where the schema knows what layers cost, `RidgeLatencyPredictor` on these costs is a second
    member; each counts by how well it predicts samples that it is not shown (stacking: Wolpert,
    1992).

    The task, and tables of other devices as the source, are HELP's (NeurIPS 2021); in place of a
    meta-learnt network stands an empirical-Bayes hierarchy of processes. Without tables, the
    kernels on counts, costs and choices remain.

    Args:
        schema: See `LatencyPredictor`.
        setting: What is left open.
    """

    name = "adaptive"
    min_samples = 3

    def __init__(self, schema: ConfigSchema, setting: AdaptiveSetting | None = None) -> None:
        super().__init__(schema)
        self._setting = setting or AdaptiveSetting()
        self._blocks: FeatureBlocks | None = None
        self._functions: DeviceFunctions | None = None
        self._factors: DeviceFactors | None = None
        self._learnt: FloatArray | None = None
        self._spread = _SPREAD

    def _learn(self, tables: LatencyTables) -> None:
        rows = tables.configs.distinct()
        configs = tables.configs.take(rows)
        latencies = [tables.latencies[device][rows] for device in tables.devices]
        blocks = FeatureBlocks.of(configs)
        own = blocks(configs)
        functions = DeviceFunctions.of(own, latencies)
        values = functions(own)
        self._spread = float(
            np.mean([np.nanstd(latency) / np.nanmean(latency) for latency in latencies])
        )
        families = [tables.family(device) for device in tables.devices]
        self._learnt = learnt_weights(
            own, values, latencies, families, self._spread, self._setting.factors
        )
        self._blocks, self._functions = blocks, functions
        self._factors = DeviceFactors.of(values, self._setting.factors)

    def _design(self, pool: Configs, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        rows = np.arange(len(pool))
        if len(pool) > max(count, _MOST_CANDIDATES):
            rows = np.sort(rng.permutation(len(pool))[: max(count, _MOST_CANDIDATES)])
        configs = pool.take(rows)
        features = self._features(configs, self._extended(configs))
        covariance = np.full((len(rows), len(rows)), _DESIGN_LEVEL)
        for name in features:
            covariance += self._setting.design[name] * kernel(name, features, features)
        wanted = None
        if self._functions is not None and DEVICES in features:
            assert self._blocks is not None
            average = self._functions(self._blocks(configs)).mean(axis=1)
            low, high = np.quantile(average, [_MIDDLE, 1.0 - _MIDDLE])
            wanted = np.flatnonzero((average >= low) & (average <= high))
        return rows[i_optimal(covariance, self._setting.design_noise, count, wanted)]

    def _fit(self, samples: Configs, latency: FloatArray) -> None:
        self._costs_share = self._share_of_costs(samples, latency)
        if self._costs_share > 0.0:
            self._costs = RidgeLatencyPredictor(self.schema).fit(samples, latency)
        self._fit_process(samples, latency)

    def _share_of_costs(self, samples: Configs, latency: FloatArray) -> float:
        """Weight of the ridge on costs, by the likelihood of samples that were left out."""
        fold = np.arange(len(latency)) % _FOLDS
        least = RidgeLatencyPredictor.min_samples
        if not any(a.labels and a.name != KERNEL_SUM for a in self.schema.amounts):
            return 0.0
        if min(len(samples.take(fold != f).distinct()) for f in range(_FOLDS)) < least:
            return 0.0
        ahead = 0.0
        for number in range(_FOLDS):
            out, rest = fold == number, fold != number
            shown, hidden = samples.take(rest), samples.take(out)
            self._fit_process(shown, latency[rest])
            own = _likelihood(latency[out], *self._predict_process(hidden))
            ridge = RidgeLatencyPredictor(self.schema)
            if np.ptp(latency[rest]) <= 1e-9 * latency[rest].max():
                return 0.0
            other = _likelihood(latency[out], *ridge.fit(shown, latency[rest]).predict(hidden))
            ahead += float((other - own).sum())
        return float(1.0 / (1.0 + np.exp(-np.clip(_TEMPER * ahead, -30.0, 30.0))))

    def _fit_process(self, samples: Configs, latency: FloatArray) -> None:
        self._samples, self._latency = samples, latency
        self._fitted_blocks = self._extended(samples)
        self._features_of_samples = self._features(samples, self._fitted_blocks)
        names = kernel_names(self._fitted_blocks.names, self._factors is not None)
        self._names = names
        # The median: one sample may be ten times too slow.
        self._unit = float(np.median(latency))
        target = (latency / self._unit - 1.0) / self._spread
        kernels = np.stack([self._kernel(name, self._features_of_samples) for name in names])
        hypotheses = structures(names)
        if self._learnt is not None:
            hypotheses = np.vstack([self._learnt, hypotheses])
        self._process = AveragedProcess.of(kernels, target, hypotheses, expected_weights(names))

    def _predict(self, configs: Configs) -> Prediction:
        mean, std = self._predict_process(configs)
        share = self._costs_share
        if share <= 0.0:
            return mean, std
        other, spread = self._costs.predict(configs)
        both = (1.0 - share) * mean + share * other
        variance = (1.0 - share) * (std**2 + (mean - both) ** 2)
        variance += share * (spread**2 + (other - both) ** 2)
        return both, np.sqrt(variance)

    def _predict_process(self, configs: Configs) -> Prediction:
        mean, variance = np.empty(len(configs)), np.empty(len(configs))
        # Blocks bound the (kernels, block, samples) array.
        size = max(1, _BLOCK * 16 // max(16, len(self._latency)))
        every = np.arange(len(configs))
        for start in range(0, len(configs), size):
            part = every[start : start + size]
            features = self._features(configs.take(part), self._fitted_blocks)
            kernels = np.stack([self._kernel(name, features) for name in self._names])
            found = self._process.level + np.einsum(
                "jmn,jn->m", kernels, self._process.coefficients, optimize=True
            )
            prior = np.stack([_own(name, features) for name in self._names])
            variance[part] = self._process.variance(kernels, prior, found)
            mean[part] = found
        scale = self._unit * self._spread
        least = _LEAST_SHARE * float(self._latency.min())
        return (
            np.maximum(self._unit + scale * mean, least),
            np.maximum(scale * np.sqrt(variance), 1e-9 * self._unit),
        )

    def _extended(self, configs: Configs) -> FeatureBlocks:
        """Blocks of the table and of what varies in `configs` only."""
        return FeatureBlocks.of(configs) if self._blocks is None else self._blocks.extended(configs)

    def _features(self, configs: Configs, blocks: FeatureBlocks) -> Blocks:
        features = blocks(configs)
        if self._blocks is not None and self._functions is not None and self._factors is not None:
            known = features if blocks is self._blocks else self._blocks(configs)
            features[DEVICES] = self._factors(self._functions(known))
        return features

    def _kernel(self, name: str, features: Blocks) -> FloatArray:
        return kernel(name, features, self._features_of_samples)

    def _state(self) -> State:
        settings: dict[str, Any] = {"spread": self._spread, "learnt": self._learnt is not None}
        arrays: dict[str, NDArray[Any]] = {}
        if self._blocks and self._functions and self._factors and self._learnt is not None:
            arrays |= self._blocks.state() | self._functions.state() | self._factors.state()
            arrays["learnt"] = self._learnt
        if self._fitted:
            # A fit is a function of its samples, and takes less than writing it down.
            arrays["samples.codes"] = self._samples.codes
            arrays["samples.amounts"] = self._samples.amounts
            arrays["samples.latency"] = self._latency
        return settings, arrays

    def _restore(self, settings: Mapping[str, Any], arrays: Arrays) -> None:
        self._spread = float(settings["spread"])
        if settings["learnt"]:
            self._blocks = FeatureBlocks.restore(arrays)
            self._functions = DeviceFunctions.restore(arrays)
            self._factors = DeviceFactors.restore(arrays)
            self._learnt = arrays["learnt"]
        if "samples.latency" in arrays:
            samples = Configs(self.schema, arrays["samples.codes"], arrays["samples.amounts"])
            self._fit(samples, arrays["samples.latency"])


def _likelihood(latency: FloatArray, mean: FloatArray, std: FloatArray) -> FloatArray:
    """Log likelihood (n,) of latencies; a disturbed one weighs no more than one far off."""
    away = (latency - mean) / std
    found: FloatArray = np.maximum(-0.5 * away**2 - np.log(std / mean), _LEAST_LIKELIHOOD)
    return found


def _own(name: str, features: Blocks) -> FloatArray:
    """The kernel of each config with itself (n,)."""
    if name == EXPONENTIAL:
        return np.ones(len(features["choices"]))
    squared: FloatArray = (features[name] ** 2).sum(axis=1)
    return squared
