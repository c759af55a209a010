"""What the search believes about subnets that it has not verified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predictors import (
    ACCURACY_PREDICTORS,
    LatencyPredictor,
    Predictor,
    SpaceEncoding,
)
from search.job import SearchSettings
from search.latency_learning import DeviceLatency
from search.results import LARGEST_LOSS, Verified
from spaces import LayerSpec, Population, SearchSpace, cost

FloatArray = NDArray[np.float64]
Prediction = tuple[FloatArray, FloatArray]


@dataclass(frozen=True)
class MetricSurrogate:
    """Predicts every metric of a problem: latency and accuracy learnt, costs exact.

    Attributes:
        space: The device's space.
        encoding: What the latency predictor reads.
        latency: Fitted on the device's measurements.
        accuracy: Fitted on verified accuracies.
        likelihood: Fitted on exp(-loss), which lies in 0..1 as an accuracy does.
    """

    space: SearchSpace
    encoding: SpaceEncoding
    latency: LatencyPredictor
    accuracy: Predictor
    likelihood: Predictor

    def predict(self, population: Population) -> Mapping[str, Prediction]:
        """Metric name -> (mean, std), (n,) each, in base units; std 0 where it is exact."""
        exact = np.zeros(len(population))
        costs = self.space.slot_features(population, _slot_costs).sum(axis=1)
        likelihood, spread = self.likelihood.predict(population)
        likelihood = np.maximum(likelihood, np.exp(-LARGEST_LOSS))
        return {
            "latency": self.latency.predict(self.encoding(population)),
            "accuracy": self.accuracy.predict(population),
            "macs": (costs[:, 0], exact),
            "params": (costs[:, 1], exact),
            "size": (costs[:, 2], exact),
            "loss": (-np.log(likelihood), spread / likelihood),
        }


def fit_surrogate(
    settings: SearchSettings,
    space: SearchSpace,
    verified: Sequence[Verified],
    evaluated: Sequence[Verified],
    device_latency: DeviceLatency,
) -> MetricSurrogate | None:
    """Learn from everything verified so far.

    Args:
        settings: Names the predictors.
        space: The device's space.
        verified: Verified for this device: latencies.
        evaluated: Verified for any device of the job: accuracies. Those that are no points of
            `space` are left out.
        device_latency: The latency predictor, and how it reads configs.

    Returns:
        None while there are too few samples for a predictor.
    """
    # By key: the order in which parallel evaluations ended must not matter.
    timed = sorted((v for v in verified if space.contains(v.config)), key=_key)
    distinct = {v.config.key: v for v in evaluated if space.contains(v.config)}
    scored = sorted(distinct.values(), key=_key)
    encoding, latency = device_latency.encoding, device_latency.unfitted()
    accuracy = ACCURACY_PREDICTORS.get(settings.accuracy_predictor)(space)
    if len(timed) < latency.min_samples or len(scored) < accuracy.min_samples:
        return None
    latency.fit(encoding(_rows(space, timed)), np.array([v.measured_ms for v in timed]))
    rows = _rows(space, scored)
    accuracy.fit(rows, np.array([v.accuracy for v in scored]))
    likelihood = ACCURACY_PREDICTORS.get(settings.accuracy_predictor)(space)
    likelihood.fit(rows, np.exp([-v.metrics["loss"] for v in scored]))
    return MetricSurrogate(space, encoding, latency, accuracy, likelihood)


def _key(verified: Verified) -> str:
    return verified.config.key


def _rows(space: SearchSpace, verified: Sequence[Verified]) -> Population:
    return np.stack([space.config(v.config).indices for v in verified])


def _slot_costs(layers: tuple[LayerSpec, ...]) -> FloatArray:
    total = cost(layers)
    return np.array([total.macs, total.params, total.bytes], np.float64)
