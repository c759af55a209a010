"""What HELP has learnt, and how it adapts to one device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from predictors.latency.base import Arrays, State
from predictors.latency.configs import Configs, ConfigSchema, FloatArray
from predictors.latency.device_models import DeviceModels, Resemblance
from predictors.latency.help_adaptation import (
    Adaptation,
    Line,
    arrays_of,
    network_encoding,
    network_output,
    tensors_of,
)
from predictors.latency.help_network import Parameters, posterior
from predictors.latency.help_settings import HelpSettings
from predictors.latency.help_tasks import Support, as_tensor, normalised
from predictors.latency.help_training import Learned
from predictors.latency.inputs import InputEncoding
from predictors.latency.noise import relative_noise
from predictors.latency.rows import NOT_FOUND, positions

# Left-out samples are predicted in at most so many folds.
_FOLDS = 20


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
        alike = Resemblance.of(self.models, samples, np.log(latency))
        filled = np.exp(alike(self.references))
        place = positions(samples, self.references)
        kept = np.flatnonzero(alike.kept)
        draws = self.settings.draws
        references = _reference_latency(filled, place, latency, kept)
        task = self._tasks(
            self.encoding(samples),
            latency,
            np.tile(references, (draws, 1)),
            np.tile(alike.kept, (draws, 1)),
        )
        adapted = self._adapted(task, self._draws(task))
        outputs = network_output(adapted, task.inputs, task.embedding)[:, kept]
        line = Line.through(outputs.mean(axis=0), latency[kept])
        spread = float((line.slope * outputs.std(axis=0) / latency[kept]).mean())
        noise = relative_noise(self._left_out(samples, latency, alike, filled, place))
        # Draws differ by a hundredth, where outputs are linear in the parameters: the mean of the
        # parameters predicts the mean of the predictions, in one pass.
        mean = {name: value.mean(dim=0, keepdim=True) for name, value in adapted.items()}
        total = self.calibration * float(np.hypot(noise, spread))
        return Adaptation(self.encoding, mean, task.embedding[:1], line, total)

    def _left_out(
        self,
        samples: Configs,
        latency: FloatArray,
        alike: Resemblance,
        filled: FloatArray,
        place: NDArray[np.int64],
    ) -> FloatArray:
        """Log of measured over predicted latency of the kept samples, each without itself.

        Args:
            samples: Measured configs, n.
            latency: (n,) in ms.
            alike: What other devices predict for them.
            filled: (r,) what other devices predict for the references, in ms.
            place: (n,) which reference a sample is.
        """
        kept = np.flatnonzero(alike.kept)
        # Repeated measurements of a config leave together.
        _, config = np.unique(samples.codes[kept], axis=0, return_inverse=True)
        folds = config.reshape(-1) % _FOLDS
        left_out = [kept[folds == fold] for fold in np.unique(folds)]
        references = np.empty((len(left_out), len(filled)))
        used = np.tile(alike.kept, (len(left_out), 1))
        for fold, out in enumerate(left_out):
            used[fold, out] = False
            references[fold] = _reference_latency(
                filled, place, latency, np.flatnonzero(used[fold])
            )
            # A left-out sample must not enter by the embedding either.
            embedded = out[place[out] != NOT_FOUND]
            references[fold, place[embedded]] = np.exp(alike.left_out[embedded])
        tasks = self._tasks(self.encoding(samples), latency, references, used)
        with torch.no_grad():
            mean, _ = posterior(self.learned.modulation, tasks.embedding)
        predicted = network_output(self._adapted(tasks, mean), tasks.inputs, tasks.embedding)
        residuals = np.empty(len(latency))
        for values, others, out in zip(predicted, used, left_out, strict=True):
            line = Line.through(values[others], latency[others])
            residuals[out] = np.log(latency[out] / line(values[out]))
        return residuals[kept]

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

    def _draws(self, tasks: Support) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.settings.seed)
        with torch.no_grad():
            mean, std = posterior(self.learned.modulation, tasks.embedding)
            return mean + std * torch.randn(mean.shape, generator=generator)

    def _adapted(self, tasks: Support, z: torch.Tensor) -> Parameters:
        return self.learned.adapted(tasks, z, self.settings.inner_steps, differentiable=False)

    def state(self) -> State:
        """Settings and arrays for `restore`."""
        arrays = {
            **self.models.state(),
            "references.codes": self.references.codes,
            "references.amounts": self.references.amounts,
            **arrays_of("network", self.learned.network),
            **arrays_of("rates", self.learned.rates),
            **arrays_of("modulation", self.learned.modulation),
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
            tensors_of("network", arrays),
            tensors_of("rates", arrays),
            tensors_of("modulation", arrays),
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
