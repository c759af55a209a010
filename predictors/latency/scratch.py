"""HELP's network without its meta-training: what that is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from predictors.latency.base import (
    LATENCY_PREDICTORS,
    Arrays,
    LatencyPredictor,
    Prediction,
    State,
)
from predictors.latency.configs import Configs, ConfigSchema, FloatArray
from predictors.latency.help_settings import HelpSettings
from predictors.latency.inputs import InputEncoding

if TYPE_CHECKING:
    from predictors.latency.help_adaptation import Adaptation

# Adam's steps on the samples, and their size.
_STEPS = 300
_STEP_SIZE = 1e-3


@LATENCY_PREDICTORS.register("scratch")
class ScratchLatencyPredictor(LatencyPredictor):
    """The network of `HelpLatencyPredictor`, trained from scratch on the measured configs alone.

    Its references are the measured configs, which are random ones. Other devices are not used.

    Args:
        schema: See `LatencyPredictor`.
        settings: Of the network; those of the meta-training are not used.
    """

    name = "scratch"
    min_samples = 5

    def __init__(self, schema: ConfigSchema, settings: HelpSettings | None = None) -> None:
        super().__init__(schema)
        self.settings = settings or HelpSettings()

    def _design(self, pool: Configs, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        return rng.permutation(len(pool))[:count].astype(np.int64)

    def _fit(self, samples: Configs, latency: FloatArray) -> None:
        from predictors.latency.help_adaptation import network_encoding
        from predictors.latency.scratch_training import train_alone

        encoding = network_encoding(InputEncoding.of(samples), self.settings)
        self._adaptation: Adaptation = train_alone(
            encoding, encoding(samples), latency, self.settings, _STEPS, _STEP_SIZE
        )

    def _predict(self, configs: Configs) -> Prediction:
        return self._adaptation.predict(configs)

    def _state(self) -> State:
        if not self._fitted:
            return {}, {}
        settings, arrays = self._adaptation.state()
        return settings, arrays | self._adaptation.encoding.state()

    def _restore(self, settings: Mapping[str, Any], arrays: Arrays) -> None:
        if settings:
            from predictors.latency.help_adaptation import Adaptation

            self._adaptation = Adaptation.restore(InputEncoding.restore(arrays), settings, arrays)
