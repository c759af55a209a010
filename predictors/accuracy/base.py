"""What all accuracy predictors refuse."""

from __future__ import annotations

import numpy as np

from predictors.base import FloatArray, Predictor
from predictors.errors import InvalidTargetError


class AccuracyPredictor(Predictor):
    """Accuracy, as a fraction between 0 and 1, of subnets of one supernet.

    Any other quantity of that range that grows with quality will do: the search also has one learn
    exp(-cross-entropy).
    """

    metric = "accuracy"

    def _check(self, target: FloatArray) -> None:
        bad = np.flatnonzero((target < 0) | (target > 1))
        if bad.size:
            raise InvalidTargetError(
                f"{self.name}: accuracy number {bad[0]} is {target[bad[0]]}; allowed: 0 to 1"
            )
