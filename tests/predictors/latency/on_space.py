"""A latency predictor asked about populations of a space, as the search asks it."""

from __future__ import annotations

import numpy as np

from predictors import LatencyPredictor, SpaceEncoding


class OnSpace:
    """`LatencyPredictor` with populations in place of `Configs`."""

    def __init__(self, kind: type[LatencyPredictor], space, kernel_latencies=None) -> None:
        self.encoding = SpaceEncoding(space, kernel_latencies)
        self.predictor = kind(self.encoding.schema)

    def choose(self, pool, count, rng) -> np.ndarray:
        return self.predictor.choose(self.encoding(pool), count, rng)

    def fit(self, population, latency) -> OnSpace:
        self.predictor.fit(self.encoding(population), latency)
        return self

    def predict(self, population):
        return self.predictor.predict(self.encoding(population))
