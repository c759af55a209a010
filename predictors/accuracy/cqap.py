"""CQAP: accuracy conditioned on the form of quantisation, the bits and the architecture."""

from __future__ import annotations

from predictors.accuracy.encoding import QUANTISATION, Part
from predictors.accuracy.network_predictor import FITTED, NetworkAccuracyPredictor
from predictors.accuracy.settings import NetworkSettings
from predictors.base import ACCURACY_PREDICTORS, FloatArray
from spaces.space import Population


@ACCURACY_PREDICTORS.register("cqap")
class CqapAccuracyPredictor(NetworkAccuracyPredictor):
    """Conditional quantisation-aware accuracy predictor (EQ-Net, Xu et al., ICCV 2023).

    A perceptron of one-hot codes of the form (granularity, symmetries of weights and activations)
    and of every layer's bits, trained by Adam on the smooth L1 loss.

    Changes to the paper:

    - The architecture is an input, as the supernet is elastic in it too.
    - Bits enter as the power of their rounding noise, not as one-hot codes.
    - Few samples must do: whole-network quantities are inputs besides, and every part of the
      inputs has the same weight (see `NetworkInputs`); the network is small; it learns logarithms
      of the error; training stops by left-out samples.
    - Five networks that leave out different samples are averaged, and give an uncertainty.
    - Where quantisation costs little, random weights of its many inputs are only noise. So they
      are trained twice, and start once at random and once, like APQ's, at zero; left-out samples
      decide.
    """

    name = "cqap"
    # More than a transferred predictor bears, which would forget.
    defaults = NetworkSettings(weight_decay=1e-2)
    parts = (Part.FORM, Part.BITS, Part.ARCHITECTURE)

    def _fit(self, population: Population, target: FloatArray) -> None:
        from predictors.accuracy.network import blind_to

        fresh = self._fresh()
        starts = [fresh]
        quantisation = [part in QUANTISATION for part in self._inputs.columns]
        if any(quantisation):
            starts.append(blind_to(fresh, quantisation))
        found = [self._trained(start, population, target) for start in starts]
        self._ensembles = {FITTED: min(found, key=lambda ensemble: ensemble.error)}
