"""APQ's predictor transfer: what float32 subnets tell about quantised ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from predictors.accuracy.encoding import QUANTISATION, Part, is_float32, without_quantisation
from predictors.accuracy.network_predictor import FITTED, NetworkAccuracyPredictor
from predictors.base import ACCURACY_PREDICTORS, FloatArray
from spaces.population import unique
from spaces.space import Population

if TYPE_CHECKING:
    from predictors.accuracy.network import Parameters

_FLOAT32 = "float32"


@ACCURACY_PREDICTORS.register("transfer")
class TransferAccuracyPredictor(NetworkAccuracyPredictor):
    """A predictor of quantised subnets that starts as one of float32 subnets (APQ, Wang et al.,
    CVPR 2020).

    The first hidden layer is ReLU(W_a x_architecture + b) + W_q x_quantisation. `fit_fp32` trains
    everything but W_q on accuracies of architectures in float32, of which a supernet has many to
    give; `fit` starts from there, W_q from zero, and trains everything on quantised subnets.
    Without `fit_fp32` the float32 subnets among the samples are learnt first, where there are
    enough of them.

    Changes to the paper: inputs, targets and the ensemble are CQAP's, so the form of quantisation
    is a part of x_quantisation; W_q starts at zero, not at random.
    """

    name = "transfer"
    parts = (Part.ARCHITECTURE,)
    added = QUANTISATION

    def fit_fp32(self, population: Population, accuracy: NDArray[np.floating]) -> Self:
        """Learn from architectures in float32, forgetting any fit.

        Args:
            population: int16 (n, d); the genes of form and bits do not count.
            accuracy: (n,) of these architectures in float32, fractions.

        Raises:
            TooFewSamplesError: Fewer distinct architectures than `min_samples`.
            InvalidTargetError: A length mismatch, or an accuracy that is not in 0 to 1.
            TableError: The configs are of another space.
        """
        self._check_space(population)
        architectures = without_quantisation(self.space, population)
        values = self._checked(architectures, accuracy)
        self._ensembles = {_FLOAT32: self._trained(self._fresh(), architectures, values)}
        self._fitted = False
        return self

    def _fit(self, population: Population, target: FloatArray) -> None:
        from predictors.accuracy.network import with_quantisation

        start = with_quantisation(self._float32(population, target), len(self._added.columns))
        self._ensembles[FITTED] = self._trained(start, population, target)

    def _float32(self, population: Population, target: FloatArray) -> Parameters:
        """Networks of float32 subnets: taught, or learnt from such samples, or random ones."""
        if _FLOAT32 in self._ensembles:
            return self._ensembles[_FLOAT32].parameters
        plain = is_float32(self.space, population)
        few = len(unique(self.space, population[plain])) < self.min_samples
        if few or plain.all():
            return self._fresh()
        return self._trained(self._fresh(), population[plain], target[plain]).parameters
