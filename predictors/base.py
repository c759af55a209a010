"""The contract of predictors: who calls what, when, and what comes back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from predictors.errors import (
    InvalidTargetError,
    NotFittedError,
    TableError,
    TooFewSamplesError,
)
from spaces.population import hashes
from spaces.registry import Registry
from spaces.space import Population, SearchSpace

FloatArray = NDArray[np.float64]
Prediction = tuple[FloatArray, FloatArray]


class Predictor(ABC):
    """Estimates one metric of subnets that were never evaluated, with an uncertainty.

    The search loop, in one process and one thread, makes a predictor for a space, calls `fit` with
    *all* verified samples so far whenever new ones have arrived (once a generation; a fit forgets
    earlier ones and is a pure function of its arguments), then `predict` hundreds of times on whole
    populations from the inner evolution. `predict` never changes the predictor. The search stores
    nothing of it: a resumed job fits it again.

    Implementations set `name`, `metric`, `min_samples` and the hooks `_fit` and `_predict`;
    validation lives here so that every predictor refuses the same input.

    Args:
        space: The space whose populations it reads.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    min_samples: ClassVar[int]

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self._fitted = False

    def fit(self, population: Population, target: NDArray[np.floating]) -> Self:
        """Learn from measured subnets, forgetting any earlier fit.

        Args:
            population: int16 (n, d); a config may occur repeatedly (repeated measurements).
            target: (n,) measured values, in the predictor's unit.

        Raises:
            TooFewSamplesError: Fewer distinct configs than `min_samples`.
            InvalidTargetError: A length mismatch, or a value that the metric cannot take.
            TableError: The configs are of another space.
        """
        self._fit(population, self._checked(population, target))
        self._fitted = True
        return self

    def _checked(self, population: Population, target: NDArray[np.floating]) -> FloatArray:
        """The targets float64 (n,) of samples that `fit` accepts."""
        self._check_space(population)
        values = np.asarray(target, dtype=np.float64)
        if values.ndim != 1 or len(values) != len(population):
            raise InvalidTargetError(
                f"{self.name}: {len(population)} configs but targets of shape {values.shape}"
            )
        distinct = len(np.unique(hashes(self.space, population)))
        if distinct < self.min_samples:
            raise TooFewSamplesError(
                f"{self.name} needs at least {self.min_samples} different measured configs, "
                f"got {distinct}"
            )
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise InvalidTargetError(
                f"{self.name}: {self.metric} number {bad[0]} is {values[bad[0]]}, must be finite"
            )
        self._check(values)
        return values

    def _check_space(self, population: Population) -> None:
        """Refuse rows that cannot be configs of this space."""
        if population.ndim != 2 or population.shape[1] != len(self.space.names):
            raise TableError(
                f"{self.name}: configs of shape {population.shape}, but {self.space.name} has "
                f"{len(self.space.names)} dimensions"
            )
        rows, columns = np.nonzero((population < 0) | (population >= self.space.cardinalities))
        if rows.size:
            raise TableError(
                f"{self.name}: config number {rows[0]} has index "
                f"{population[rows[0], columns[0]]} of {self.space.names[columns[0]]}; allowed in "
                f"{self.space.name}: 0 to {self.space.cardinalities[columns[0]] - 1}"
            )

    def predict(self, population: Population) -> Prediction:
        """Mean and standard deviation of the metric of one evaluation.

        Args:
            population: int16 (n, d).

        Returns:
            (mean, std), float64 (n,) each, in the unit of the targets; std > 0.

        Raises:
            NotFittedError: `fit` has not been called.
            TableError: The configs are of another space.
        """
        if not self._fitted:
            raise NotFittedError(f"{self.name} was asked to predict before it was fitted")
        self._check_space(population)
        if not len(population):
            return np.zeros(0), np.zeros(0)
        return self._predict(population)

    def _check(self, target: FloatArray) -> None:  # noqa: B027
        """Raise InvalidTargetError for finite values that the metric cannot take."""

    @abstractmethod
    def _fit(self, population: Population, target: FloatArray) -> None:
        """Fit on validated samples."""

    @abstractmethod
    def _predict(self, population: Population) -> Prediction:
        """Predict a non-empty population after a fit."""


ACCURACY_PREDICTORS: Registry[type[Predictor]] = Registry(
    "accuracy predictor", "netcarve.accuracy_predictors"
)
