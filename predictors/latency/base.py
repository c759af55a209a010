"""The contract of latency predictors: who calls what, when, and what comes back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from predictors.errors import (
    InvalidTargetError,
    NotFittedError,
    PredictorFileError,
    TooFewSamplesError,
)
from predictors.latency.configs import Configs, ConfigSchema, FloatArray, check_schema
from predictors.latency.tables import LatencyTables
from predictors.predictor_file import read_predictor, write_predictor
from spaces.registry import Registry

Prediction = tuple[FloatArray, FloatArray]
Arrays = Mapping[str, NDArray[Any]]
State = tuple[dict[str, Any], dict[str, NDArray[Any]]]


class LatencyPredictor(ABC):
    """Latency in milliseconds on one device that was never seen, learnt from few measurements.

    The search, in one process and one thread, makes a predictor for a schema, hands it the tables
    of *other* devices (`learn`, once, where there are any), calls `choose` with a large pool and
    measures the chosen configs. It calls `fit` with them, and later with them plus every verified
    subnet, once a generation: a fit starts from what was learnt and is a pure function of its
    arguments. Then `predict` hundreds of times on whole populations. Nothing of the new device is
    read but the samples.

    Implementations set `name` and `min_samples` and the hooks `_learn`, `_design`, `_fit`,
    `_predict`, `_state` and `_restore`; validation lives here so that every predictor refuses the
    same input.

    Args:
        schema: What the configs look like.
    """

    name: ClassVar[str]
    min_samples: ClassVar[int]

    def __init__(self, schema: ConfigSchema) -> None:
        self.schema = schema
        self._fitted = False

    def learn(self, tables: LatencyTables) -> Self:
        """Learn from other devices how latencies of this space behave, forgetting any fit.

        Args:
            tables: Their latencies, of configs of this schema.

        Raises:
            TableError: The table is of another space.
        """
        check_schema(tables.configs.schema, self.schema)
        self._learn(tables)
        self._fitted = False
        return self

    def choose(self, pool: Configs, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """The configs of a pool that are worth measuring first.

        Args:
            pool: Candidates.
            count: How many to choose.
            rng: Breaks ties; the same generator state gives the same choice.

        Returns:
            Row numbers (count,) of different configs, most informative first.

        Raises:
            TooFewSamplesError: The pool holds fewer than `count` different configs.
            TableError: The pool is of another space.
        """
        check_schema(pool.schema, self.schema)
        distinct = pool.distinct()
        if count > len(distinct):
            raise TooFewSamplesError(
                f"{count} configs to measure were asked of a pool of {len(distinct)} different ones"
            )
        return distinct[self._design(pool.take(distinct), count, rng)]

    def fit(self, samples: Configs, latency: NDArray[np.floating]) -> Self:
        """Adapt to the device, forgetting any earlier fit.

        Args:
            samples: The measured configs, n; one may occur repeatedly (repeated measurements).
            latency: (n,) in ms.

        Raises:
            TooFewSamplesError: Fewer different configs than `min_samples`.
            InvalidTargetError: A length mismatch, a latency that is not finite and above 0, or
                latencies that are all the same.
            TableError: The samples are of another space.
        """
        check_schema(samples.schema, self.schema)
        values = np.asarray(latency, dtype=np.float64)
        if values.shape != (len(samples),):
            raise InvalidTargetError(
                f"{self.name}: {len(samples)} configs but latencies of shape {values.shape}"
            )
        distinct = len(samples.distinct())
        if distinct < self.min_samples:
            raise TooFewSamplesError(
                f"{self.name} needs at least {self.min_samples} different measured configs, "
                f"got {distinct}"
            )
        bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        if bad.size:
            raise InvalidTargetError(
                f"{self.name}: latency number {bad[0]} is {values[bad[0]]} ms, must be finite and "
                "above 0"
            )
        if np.ptp(values) <= 1e-9 * values.max():
            raise InvalidTargetError(
                f"{self.name}: all {len(values)} latencies are {values[0]} ms; different subnets "
                "must differ, so the clock or the runner of this device does not measure them"
            )
        self._fit(samples, values)
        self._fitted = True
        return self

    def predict(self, configs: Configs) -> Prediction:
        """Mean and standard deviation of the latency of one measurement.

        Returns:
            (mean, std), float64 (n,) each, in ms, both above 0.

        Raises:
            NotFittedError: `fit` has not been called.
            TableError: The configs are of another space.
        """
        if not self._fitted:
            raise NotFittedError(f"{self.name} was asked to predict before it was fitted")
        check_schema(configs.schema, self.schema)
        if not len(configs):
            return np.zeros(0), np.zeros(0)
        return self._predict(configs)

    def save(self, file: str | Path) -> None:
        """Write what was learnt and fitted as safetensors; nothing is pickled.

        The file's metadata holds the rest as JSON. A file that is there is replaced whole.

        Raises:
            OSError: The file cannot be written.
        """
        settings, arrays = self._state()
        described = {
            "schema": self.schema.to_json(),
            "fitted": self._fitted,
            "state": settings,
        }
        write_predictor(file, self.name, described, arrays)

    @classmethod
    def load(cls, file: str | Path) -> Self:
        """The predictor that `save` wrote.

        Raises:
            PredictorFileError: The file cannot be read, is damaged, or holds another predictor.
        """
        described, arrays = read_predictor(file, cls.name)
        try:
            predictor = cls(ConfigSchema.from_json(described["schema"]))
            predictor._restore(described["state"], arrays)
            predictor._fitted = bool(described["fitted"])
        except (KeyError, TypeError, ValueError) as error:
            raise PredictorFileError(f"{str(file)!r} is no latency predictor: {error}") from None
        return predictor

    def _learn(self, tables: LatencyTables) -> None:  # noqa: B027
        """Learn from a table of this schema; nothing to do where other devices do not count."""

    @abstractmethod
    def _design(self, pool: Configs, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Choose among different configs, at least `count` of them."""

    @abstractmethod
    def _fit(self, samples: Configs, latency: FloatArray) -> None:
        """Fit on validated samples."""

    @abstractmethod
    def _predict(self, configs: Configs) -> Prediction:
        """Predict at least one config after a fit."""

    @abstractmethod
    def _state(self) -> State:
        """What `_restore` needs: JSON-ready settings, and arrays."""

    @abstractmethod
    def _restore(self, settings: Mapping[str, Any], arrays: Arrays) -> None:
        """Become what `_state` described.

        Raises:
            KeyError, TypeError, ValueError: It is not such a description.
        """


LATENCY_PREDICTORS: Registry[type[LatencyPredictor]] = Registry(
    "latency predictor", "netcarve.latency_predictors"
)
