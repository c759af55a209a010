"""Trained perceptrons: their mean is the prediction, how they differ tells its uncertainty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from predictors.accuracy.network import Parameters, forward
from predictors.accuracy.target_scale import TargetScale
from predictors.base import FloatArray, Prediction

# Rows that are predicted at once: (members, rows, hidden) temporaries of some megabytes.
_ROWS = 4096


@dataclass(frozen=True)
class Rows:
    """What networks read of n configs: inputs (n, i) and quantisation (n, q), float32."""

    inputs: Tensor
    quantisation: Tensor

    @classmethod
    def of(cls, inputs: FloatArray, quantisation: FloatArray) -> Self:
        """Rows from arrays."""
        return cls(*(torch.from_numpy(part.astype(np.float32)) for part in (inputs, quantisation)))

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, which: Tensor | slice) -> Rows:
        """Some of the rows."""
        return Rows(self.inputs[which], self.quantisation[which])


@dataclass(frozen=True)
class Ensemble:
    """Members and what they were trained on.

    Attributes:
        parameters: Of all members.
        scale: Accuracies <-> what members predict.
        noise: Standard deviation of errors that the members do not show by differing, on the scale
            of the targets.
        error: Mean squared error of members on samples that they left out, on that scale.
    """

    parameters: Parameters
    scale: TargetScale
    noise: float
    error: float

    @property
    def inputs(self) -> int:
        """Columns of the inputs that the members read."""
        return self.parameters["layer0.weight"].shape[1]

    def predict(self, rows: Rows) -> Prediction:
        """Means and standard deviations (n,) of accuracies, fractions."""
        members = outputs(self.parameters, rows)
        spread = members.var(axis=0, ddof=1)
        return self.scale.accuracy(members.mean(axis=0), np.sqrt(spread + self.noise**2))

    def settings(self) -> dict[str, Any]:
        """What `restore` needs beside the parameters, ready for JSON."""
        return {
            "scale": [self.scale.mean, self.scale.spread],
            "noise": self.noise,
            "error": self.error,
        }

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """The parameters as arrays whose names start with a prefix."""
        return {f"{prefix}.{name}": value.numpy() for name, value in self.parameters.items()}

    @classmethod
    def restore(
        cls, prefix: str, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> Self:
        """The ensemble whose `settings` and `arrays` these are.

        Raises:
            KeyError, TypeError, ValueError: They are not such.
        """
        mean, spread = map(float, settings["scale"])
        start = f"{prefix}."
        parameters = {
            name.removeprefix(start): torch.from_numpy(array)
            for name, array in arrays.items()
            if name.startswith(start)
        }
        noise, error = float(settings["noise"]), float(settings["error"])
        return cls(parameters, TargetScale(mean, spread), noise, error)


def outputs(parameters: Parameters, rows: Rows) -> FloatArray:
    """What every member predicts: standardised targets float64 (m, n), without gradients."""
    with torch.no_grad():
        blocks = [rows.take(slice(at, at + _ROWS)) for at in range(0, len(rows), _ROWS)]
        found = [forward(parameters, part.inputs, part.quantisation) for part in blocks]
        return torch.cat(found, dim=1).numpy().astype(np.float64)
