"""Baselines that a few-shot latency predictor has to beat: they transfer one factor, or nothing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictors.errors import NotFittedError, TableError
from predictors.latency.base import (
    LATENCY_PREDICTORS,
    Arrays,
    LatencyPredictor,
    Prediction,
    State,
)
from predictors.latency.choices import one_hot_choices
from predictors.latency.configs import Configs, ConfigSchema, FloatArray
from predictors.latency.device_models import DeviceModels
from predictors.latency.encoding import KERNEL_SUM
from predictors.latency.noise import relative_noise
from predictors.latency.rows import NOT_FOUND, positions
from predictors.latency.tables import LatencyTables
from predictors.scores import spearman

_PENALTIES = np.geomspace(1e-3, 1e2, 11)
_LEAST = 1e-9


class ScaledPredictor(LatencyPredictor):
    """Latency proportional to something known of a config; the one factor is fitted.

    The factor is the median ratio, so that a wild measurement does not move it. The measured
    configs are random ones. Implementations give `_unscaled`, and `_pick` where the measurements
    decide more than the factor.
    """

    min_samples = 2

    def _design(self, pool: Configs, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        return rng.permutation(len(pool))[:count].astype(np.int64)

    def _fit(self, samples: Configs, latency: FloatArray) -> None:
        self._pick(samples, latency)
        residuals = np.log(latency / self._unscaled(samples))
        level = float(np.median(residuals))
        self._factor = float(np.exp(level))
        self._noise = relative_noise(residuals - level, fitted=1)

    def _predict(self, configs: Configs) -> Prediction:
        mean = np.maximum(self._factor * self._unscaled(configs), _LEAST)
        return mean, self._noise * mean

    def _pick(self, samples: Configs, latency: FloatArray) -> None:
        """Decide what is scaled."""

    @abstractmethod
    def _unscaled(self, configs: Configs) -> FloatArray:
        """What latency is proportional to (n,), above 0."""

    def _state(self) -> State:
        return ({"factor": self._factor, "noise": self._noise} if self._fitted else {}), {}

    def _restore(self, settings: Mapping[str, Any], arrays: Arrays) -> None:
        if "factor" in settings:
            self._factor, self._noise = float(settings["factor"]), float(settings["noise"])


@LATENCY_PREDICTORS.register("macs")
class MacsLatencyPredictor(ScaledPredictor):
    """Latency proportional to multiply-accumulates: the amounts with `macs` in their name.

    Raises:
        TableError: The schema has no such amount.
    """

    name = "macs"

    def __init__(self, schema: ConfigSchema) -> None:
        super().__init__(schema)
        self._macs = np.array(["macs" in amount.name for amount in schema.amounts], dtype=np.bool_)
        if not self._macs.any():
            names = [amount.name for amount in schema.amounts]
            raise TableError(f"macs: no amount of MACs among {names[:6]}")

    def _unscaled(self, configs: Configs) -> FloatArray:
        macs: FloatArray = configs.amounts[:, self._macs].sum(axis=1)
        return np.maximum(macs, 1.0)


@LATENCY_PREDICTORS.register("lookup")
class LookupLatencyPredictor(ScaledPredictor):
    """A lookup table of latencies, summed over what a config consists of.

    Where the latencies of the kernels on the device are known (`KERNEL_SUM`), their sum is scaled.
    Otherwise the table has an entry for every choice: its share of a config's latency in an
    additive model, averaged over the other devices.
    """

    name = "lookup"

    def __init__(self, schema: ConfigSchema) -> None:
        super().__init__(schema)
        names = [amount.name for amount in schema.amounts]
        self._kernels = names.index(KERNEL_SUM) if KERNEL_SUM in names else None
        self._table: FloatArray | None = None

    def _learn(self, tables: LatencyTables) -> None:
        inputs = _additive(tables.configs)
        found = []
        for latency in tables.latencies.values():
            known = ~np.isnan(latency)
            relative = latency[known] / latency[known].mean()
            found.append(_ridge(inputs[known], relative, 1e-3)[0])
        self._table = np.mean(found, axis=0)

    def _unscaled(self, configs: Configs) -> FloatArray:
        if self._kernels is not None:
            return np.maximum(configs.amounts[:, self._kernels], _LEAST)
        if self._table is None:
            raise NotFittedError(
                "lookup needs the kernels' latencies or tables of other devices: call learn first"
            )
        return _positive(_additive(configs) @ self._table)

    def _state(self) -> State:
        return super()._state()[0], {} if self._table is None else {"table": self._table}

    def _restore(self, settings: Mapping[str, Any], arrays: Arrays) -> None:
        super()._restore(settings, arrays)
        self._table = arrays.get("table")


@LATENCY_PREDICTORS.register("nearest")
class NearestLatencyPredictor(ScaledPredictor):
    """The latencies of the most similar of the other devices, scaled.

    Similar is the device whose latencies of the measured configs have the highest rank
    correlation. Configs that are not in its table are predicted by a regression of it.
    """

    name = "nearest"

    def __init__(self, schema: ConfigSchema) -> None:
        super().__init__(schema)
        self._models: DeviceModels | None = None
        self._nearest = 0

    def _learn(self, tables: LatencyTables) -> None:
        self._models = DeviceModels.of(tables)
        self._configs = tables.configs
        # [p, D]
        self._latency = np.stack(list(tables.latencies.values()), axis=1)

    def _pick(self, samples: Configs, latency: FloatArray) -> None:
        known = self._known(samples)
        self._nearest = int(np.argmax([spearman(latency, column) for column in known.T]))

    def _unscaled(self, configs: Configs) -> FloatArray:
        return self._known(configs)[:, self._nearest]

    def _known(self, configs: Configs) -> FloatArray:
        """Latencies (n, D) in ms: measured ones where there are any."""
        if self._models is None:
            raise NotFittedError("nearest needs tables of other devices: call learn first")
        predicted = np.exp(self._models(configs))
        place = positions(configs, self._configs)
        measured = np.where((place != NOT_FOUND)[:, None], self._latency[place], np.nan)
        return np.where(np.isnan(measured), predicted, measured)

    @property
    def nearest(self) -> str:
        """The device that the fit chose.

        Raises:
            NotFittedError: There is no fit.
        """
        if self._models is None or not self._fitted:
            raise NotFittedError("nearest was asked for its device before it was fitted")
        return self._models.devices[self._nearest]

    def _state(self) -> State:
        settings, _ = super()._state()
        if self._models is None:
            return settings, {}
        settings |= {"devices": list(self._models.devices), "nearest": self._nearest}
        arrays = {
            **self._models.state(),
            "table.codes": self._configs.codes,
            "table.amounts": self._configs.amounts,
            "table.latency": self._latency,
        }
        return settings, arrays

    def _restore(self, settings: Mapping[str, Any], arrays: Arrays) -> None:
        super()._restore(settings, arrays)
        if "devices" in settings:
            self._models = DeviceModels.restore(tuple(settings["devices"]), arrays)
            self._nearest = int(settings["nearest"])
            self._configs = Configs(self.schema, arrays["table.codes"], arrays["table.amounts"])
            self._latency = arrays["table.latency"]


@LATENCY_PREDICTORS.register("additive")
class AdditiveLatencyPredictor(LatencyPredictor):
    """Layer-wise additive: ridge regression on the choices, from the measured configs alone.

    The penalty is chosen by leaving samples out. The measured configs are random ones.
    """

    name = "additive"
    min_samples = 3

    def _design(self, pool: Configs, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        return rng.permutation(len(pool))[:count].astype(np.int64)

    def _fit(self, samples: Configs, latency: FloatArray) -> None:
        self._level = float(np.median(latency))
        inputs, relative = _additive(samples), latency / self._level
        tried = [_ridge(inputs, relative, float(penalty)) for penalty in _PENALTIES]
        best = min(tried, key=lambda found: float((found[1] ** 2).mean()))
        self._rates = best[0]
        left_out = _positive(relative - best[1])
        self._noise = relative_noise(np.log(relative / left_out))

    def _predict(self, configs: Configs) -> Prediction:
        mean = self._level * _positive(_additive(configs) @ self._rates)
        return mean, self._noise * mean

    def _state(self) -> State:
        if not self._fitted:
            return {}, {}
        return {"level": self._level, "noise": self._noise}, {"rates": self._rates}

    def _restore(self, settings: Mapping[str, Any], arrays: Arrays) -> None:
        if settings:
            self._level, self._noise = float(settings["level"]), float(settings["noise"])
            self._rates = arrays["rates"]


def _additive(configs: Configs) -> FloatArray:
    """A constant and the choices (n, 1 + k)."""
    return np.column_stack([np.ones(len(configs)), one_hot_choices(configs)])


def _ridge(inputs: FloatArray, target: FloatArray, penalty: float) -> tuple[FloatArray, FloatArray]:
    """Rates (k,) with the constant free, and the residuals (n,) of rows left out one by one."""
    penalties = np.full(inputs.shape[1], penalty)
    penalties[0] = 1e-9
    inverse = np.linalg.inv(inputs.T @ inputs + np.diag(penalties))
    rates = inverse @ (inputs.T @ target)
    leverage = np.minimum(((inputs @ inverse) * inputs).sum(axis=1), 1.0 - 1e-6)
    return rates, (target - inputs @ rates) / (1.0 - leverage)


def _positive(relative: FloatArray) -> FloatArray:
    """Relative latencies, those under 0.1 falling off exponentially: a sum may drop below 0."""
    return np.where(
        relative > 0.1, relative, np.maximum(0.1 * np.exp(relative / 0.1 - 1.0), _LEAST)
    )
