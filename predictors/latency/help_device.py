"""What HELP has learnt, and its adaptation to one device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from predictors.latency.base import Arrays, Prediction, State
from predictors.latency.configs import Configs, ConfigSchema, FloatArray
from predictors.latency.device_models import DeviceModels, Resemblance
from predictors.latency.help_network import Parameters, forward, init_network, posterior
from predictors.latency.help_settings import HelpSettings
from predictors.latency.help_tasks import Support, as_tensor, normalised
from predictors.latency.help_training import Learned
from predictors.latency.inputs import InputEncoding
from predictors.latency.noise import relative_noise
from predictors.latency.rows import NOT_FOUND, positions

# Left-out samples are predicted in at most so many folds.
_FOLDS = 20
_FOLDS_ALONE = 5


def network_encoding(encoding: InputEncoding, settings: HelpSettings) -> InputEncoding:
    """What the network reads of an encoding of configs."""
    return encoding if settings.amounts else encoding.choices_only()


@dataclass
class MetaLearned:
    """What `learn` leaves behind.

    Attributes:
        learned: Of the meta-training.
        models: Regressions of the other devices.
        references: The configs that embed a device, r of them.
        settings: How it was trained.
        calibration: Factor of standard deviations.
    """

    learned: Learned
    models: DeviceModels
    references: Configs
    settings: HelpSettings
    calibration: float = 1.0

    @property
    def encoding(self) -> InputEncoding:
        """Configs -> inputs of the network."""
        return network_encoding(self.models.encoding, self.settings)

    def adapt(self, samples: Configs, latency: FloatArray) -> Adaptation:
        """Adapt to a device.

        Args:
            samples: Measured configs, n at least 3.
            latency: (n,) in ms.
        """
        logs = np.log(latency)
        alike = Resemblance.of(self.models, samples, logs)
        filled = np.exp(alike(self.references))
        place = positions(samples, self.references)
        kept = np.flatnonzero(alike.kept)
        inputs = self.encoding(samples)

        folds = np.arange(len(kept)) % min(len(kept), _FOLDS)
        left_out = [kept[folds == fold] for fold in range(int(folds.max()) + 1)]
        residuals = np.zeros(len(latency))
        references, weights = [], []
        for out in left_out:
            used = np.setdiff1d(kept, out)
            # A left-out sample must not enter by the embedding either.
            values = _reference_latency(filled, place, latency, used)
            values[place[out][place[out] != NOT_FOUND]] = np.exp(
                alike.left_out[out][place[out] != NOT_FOUND]
            )
            references.append(values)
            weights.append(np.isin(np.arange(len(latency)), used))
        tasks = self._tasks(inputs, latency, np.stack(references), np.stack(weights))
        predicted = self._predicted(tasks, self._mean(tasks))
        for out, used, values in zip(left_out, np.stack(weights), predicted, strict=True):
            line = _Line.through(values[used], latency[used])
            residuals[out] = logs[out] - np.log(line(values[out]))

        final = _reference_latency(filled, place, latency, kept)[None]
        draws = self.settings.draws
        task = self._tasks(
            inputs, latency, np.repeat(final, draws, axis=0), np.tile(alike.kept, (draws, 1))
        )
        adapted = self._adapted(task, self._draws(task))
        values = _forward(adapted, task.inputs, task.embedding).mean(axis=0)
        return Adaptation(
            self.encoding,
            adapted,
            task.embedding,
            _Line.through(values[kept], latency[kept]),
            relative_noise(residuals[kept]),
            self.calibration,
        )

    def _tasks(
        self, inputs: FloatArray, latency: FloatArray, references: FloatArray, used: NDArray[Any]
    ) -> Support:
        """Tasks of one device, of latencies (t, r) of the references and used samples (t, n)."""
        embedding, labels = normalised(references, latency)
        return Support(
            as_tensor(inputs),
            as_tensor(labels),
            as_tensor(used.astype(np.float64)),
            as_tensor(embedding),
        )

    def _mean(self, tasks: Support) -> torch.Tensor:
        with torch.no_grad():
            return posterior(self.learned.modulation, tasks.embedding)[0]

    def _draws(self, tasks: Support) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.settings.seed)
        with torch.no_grad():
            mean, std = posterior(self.learned.modulation, tasks.embedding)
            return mean + std * torch.randn(mean.shape, generator=generator)

    def _adapted(self, tasks: Support, z: torch.Tensor) -> Parameters:
        return self.learned.adapted(tasks, z, self.settings.inner_steps, differentiable=False)

    def _predicted(self, tasks: Support, z: torch.Tensor) -> FloatArray:
        return _forward(self._adapted(tasks, z), tasks.inputs, tasks.embedding)

    def state(self) -> State:
        """Settings and arrays for `restore`."""
        arrays = {
            **self.models.state(),
            "references.codes": self.references.codes,
            "references.amounts": self.references.amounts,
            **_arrays("network", self.learned.network),
            **_arrays("rates", self.learned.rates),
            **_arrays("modulation", self.learned.modulation),
        }
        return {"devices": list(self.models.devices), "calibration": self.calibration}, arrays

    @classmethod
    def restore(
        cls, schema: ConfigSchema, how: HelpSettings, settings: Mapping[str, Any], arrays: Arrays
    ) -> Self:
        """What `state` described.

        Raises:
            KeyError, TypeError, ValueError: It is not such a description.
        """
        learned = Learned(
            _tensors("network", arrays), _tensors("rates", arrays), _tensors("modulation", arrays)
        )
        models = DeviceModels.restore(tuple(settings["devices"]), arrays)
        references = Configs(schema, arrays["references.codes"], arrays["references.amounts"])
        return cls(learned, models, references, how, float(settings["calibration"]))


def _reference_latency(
    filled: FloatArray, place: NDArray[np.int64], latency: FloatArray, used: NDArray[np.int64]
) -> FloatArray:
    """Latencies (r,) of the references: measured where a used sample is one, else as filled in."""
    found = filled.copy()
    used = used[place[used] != NOT_FOUND]
    for reference in np.unique(place[used]):
        found[reference] = np.median(latency[used[place[used] == reference]])
    return found


@dataclass(frozen=True)
class _Line:
    """Network output -> ms: the predicted range of the samples is laid on their measured range.

    Below `least`, where a line would reach 0, latencies fall off exponentially and keep their
    order.
    """

    slope: float
    offset: float
    least: float

    @classmethod
    def through(cls, predicted: FloatArray, latency: FloatArray) -> Self:
        span = max(float(np.ptp(predicted)), 1e-6)
        slope = float(np.ptp(latency)) / span
        low = float(latency.min())
        return cls(slope, low - slope * float(predicted.min()), 0.5 * low)

    def __call__(self, output: FloatArray) -> FloatArray:
        ms = self.offset + self.slope * output
        below = self.least * np.exp(np.minimum(ms / self.least - 1.0, 0.0))
        return np.where(ms > self.least, ms, np.maximum(below, 1e-9))


def train_alone(
    encoding: InputEncoding,
    inputs: FloatArray,
    latency: FloatArray,
    settings: HelpSettings,
    steps: int,
    step_size: float,
) -> Adaptation:
    """The network trained on one device's samples alone, which are its references too.

    Args:
        encoding: Configs -> inputs.
        inputs: (n, i) of the samples.
        latency: (n,) in ms.
        settings: Of the network.
        steps: Steps of Adam on all samples.
        step_size: Of these steps.
    """
    count = len(latency)
    folds = np.arange(count) % min(count, _FOLDS_ALONE)
    # Task 0 learns from all samples, each of the others without those of a fold.
    used = np.stack([folds != fold for fold in range(-1, int(folds.max()) + 1)])
    low, high = latency.min(), latency.max()
    references = np.where(used, latency, np.median(latency))
    embedding, _ = normalised(references, latency)
    labels = as_tensor(normalised(np.array([[low, high]]), latency)[1])
    generator = torch.Generator().manual_seed(settings.seed)
    network = init_network(inputs.shape[1], count, settings.hidden, generator)
    found = {
        name: value.repeat(len(used), 1, 1).requires_grad_() for name, value in network.items()
    }
    given, device, weights = as_tensor(inputs), as_tensor(embedding), as_tensor(used * 1.0)
    optimizer = torch.optim.Adam(list(found.values()), lr=step_size)
    with torch.enable_grad():
        for _ in range(steps):
            optimizer.zero_grad()
            errors = forward(found, given, device) - labels
            loss = ((weights * errors**2).sum(dim=1) / weights.sum(dim=1)).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    found = {name: value.detach() for name, value in found.items()}
    predicted = _forward(found, given, device)
    residuals = np.zeros(count)
    for values, mask in zip(predicted[1:], used[1:], strict=True):
        line = _Line.through(values[mask], latency[mask])
        residuals[~mask] = np.log(latency[~mask] / line(values[~mask]))
    line = _Line.through(predicted[0], latency)
    alone = {name: value[:1].clone() for name, value in found.items()}
    return Adaptation(encoding, alone, device[:1], line, relative_noise(residuals), 1.0)


@dataclass(frozen=True)
class Adaptation:
    """The network adapted to a device.

    Attributes:
        encoding: Configs -> inputs.
        parameters: Of t draws of z.
        embedding: (t, r).
        line: Outputs -> ms.
        noise: Relative standard deviation of a prediction beside the spread over draws.
        calibration: Factor of standard deviations.
    """

    encoding: InputEncoding
    parameters: Parameters
    embedding: torch.Tensor
    line: _Line
    noise: float
    calibration: float

    def predict(self, configs: Configs) -> Prediction:
        """Mean and standard deviation (n,) in ms."""
        means, spreads = [], []
        inputs = self.encoding(configs)
        # Blocks bound the (t, block, hidden) temporaries to some tens of megabytes.
        for start in range(0, len(inputs), 4096):
            block = as_tensor(inputs[start : start + 4096])
            output = _forward(self.parameters, block, self.embedding)
            means.append(output.mean(axis=0))
            spreads.append(output.std(axis=0))
        mean = self.line(np.concatenate(means))
        spread = abs(self.line.slope) * np.concatenate(spreads)
        return mean, self.calibration * np.hypot(spread, self.noise * mean)

    def state(self) -> State:
        """Settings and arrays for `restore`."""
        settings = {
            "line": [self.line.slope, self.line.offset, self.line.least],
            "noise": self.noise,
            "calibration": self.calibration,
        }
        arrays = _arrays("adapted", self.parameters)
        return settings, {**arrays, "embedding": self.embedding.numpy()}

    @classmethod
    def restore(cls, encoding: InputEncoding, settings: Mapping[str, Any], arrays: Arrays) -> Self:
        """What `state` described.

        Raises:
            KeyError, TypeError, ValueError: It is not such a description.
        """
        slope, offset, least = map(float, settings["line"])
        return cls(
            encoding,
            _tensors("adapted", arrays),
            torch.from_numpy(arrays["embedding"]),
            _Line(slope, offset, least),
            float(settings["noise"]),
            float(settings["calibration"]),
        )


def _forward(parameters: Parameters, inputs: torch.Tensor, embedding: torch.Tensor) -> FloatArray:
    with torch.no_grad():
        return forward(parameters, inputs, embedding).numpy().astype(np.float64)


def _arrays(prefix: str, parameters: Parameters) -> dict[str, NDArray[Any]]:
    return {f"{prefix}.{name}": value.numpy() for name, value in parameters.items()}


def _tensors(prefix: str, arrays: Arrays) -> Parameters:
    start = f"{prefix}."
    return {
        name.removeprefix(start): torch.from_numpy(array)
        for name, array in arrays.items()
        if name.startswith(start)
    }
