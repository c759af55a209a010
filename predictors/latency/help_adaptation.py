"""HELP's network once it is adapted to a device: outputs in ms, with an uncertainty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from predictors.latency.base import Arrays, Prediction, State
from predictors.latency.configs import Configs, FloatArray
from predictors.latency.help_network import Parameters, forward
from predictors.latency.help_settings import HelpSettings
from predictors.latency.help_tasks import as_tensor
from predictors.latency.inputs import InputEncoding


def network_encoding(encoding: InputEncoding, settings: HelpSettings) -> InputEncoding:
    """What the network reads of an encoding of configs."""
    return encoding if settings.amounts else encoding.choices_only()


@dataclass(frozen=True)
class Line:
    """Network output -> ms: the predicted range of the samples is laid on their measured range.

    Below `least`, where a line would reach 0, latencies fall off exponentially and keep their
    order.
    """

    slope: float
    offset: float
    least: float

    @classmethod
    def through(cls, predicted: FloatArray, latency: FloatArray) -> Self:
        """The line of samples: outputs (n,) and latencies (n,) in ms."""
        span = max(float(np.ptp(predicted)), 1e-6)
        slope = float(np.ptp(latency)) / span
        low = float(latency.min())
        return cls(slope, low - slope * float(predicted.min()), 0.5 * low)

    def __call__(self, output: FloatArray) -> FloatArray:
        """Latencies (n,) in ms, above 0."""
        ms = self.offset + self.slope * output
        below = self.least * np.exp(np.minimum(ms / self.least - 1.0, 0.0))
        return np.where(ms > self.least, ms, np.maximum(below, 1e-9))


@dataclass(frozen=True)
class Adaptation:
    """The network adapted to a device.

    Attributes:
        encoding: Configs -> inputs.
        parameters: Of one task.
        embedding: (1, r).
        line: Outputs -> ms.
        noise: Relative standard deviation of a prediction.
    """

    encoding: InputEncoding
    parameters: Parameters
    embedding: torch.Tensor
    line: Line
    noise: float

    def predict(self, configs: Configs) -> Prediction:
        """Mean and standard deviation (n,) in ms."""
        inputs = self.encoding(configs)
        # Blocks bound the (block, hidden) temporaries to some megabytes.
        blocks = [as_tensor(inputs[at : at + 4096]) for at in range(0, len(inputs), 4096)]
        outputs = [network_output(self.parameters, block, self.embedding)[0] for block in blocks]
        mean = self.line(np.concatenate(outputs))
        return mean, self.noise * mean

    def state(self) -> State:
        """Settings and arrays for `restore`."""
        line = [self.line.slope, self.line.offset, self.line.least]
        arrays = arrays_of("adapted", self.parameters)
        return {"line": line, "noise": self.noise}, {**arrays, "embedding": self.embedding.numpy()}

    @classmethod
    def restore(cls, encoding: InputEncoding, settings: Mapping[str, Any], arrays: Arrays) -> Self:
        """What `state` described.

        Raises:
            KeyError, TypeError, ValueError: It is not such a description.
        """
        slope, offset, least = map(float, settings["line"])
        return cls(
            encoding,
            tensors_of("adapted", arrays),
            torch.from_numpy(arrays["embedding"]),
            Line(slope, offset, least),
            float(settings["noise"]),
        )


def network_output(
    parameters: Parameters, inputs: torch.Tensor, embedding: torch.Tensor
) -> FloatArray:
    """Outputs (t, n), without gradients."""
    with torch.no_grad():
        return forward(parameters, inputs, embedding).numpy().astype(np.float64)


def arrays_of(prefix: str, parameters: Parameters) -> dict[str, NDArray[Any]]:
    """Parameters as arrays whose names start with a prefix."""
    return {f"{prefix}.{name}": value.numpy() for name, value in parameters.items()}


def tensors_of(prefix: str, arrays: Arrays) -> Parameters:
    """The parameters whose names start with a prefix."""
    start = f"{prefix}."
    return {
        name.removeprefix(start): torch.from_numpy(array)
        for name, array in arrays.items()
        if name.startswith(start)
    }
