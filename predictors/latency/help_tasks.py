"""Devices as tasks of HELP's meta-training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from predictors.latency.choices import choice_counts
from predictors.latency.configs import Configs, FloatArray
from predictors.latency.device_models import DeviceModels, Resemblance
from predictors.latency.help_settings import HelpSettings
from predictors.latency.inputs import InputEncoding
from predictors.latency.tables import LatencyTables

# Labels of the fastest and of the slowest reference.
_LOWEST, _SPAN = 0.05, 0.9
# A gap of a table is filled in from at most so many measurements of its device.
_MOST_KNOWN = 200
# Made-up devices: how far rates differ, and the noise of a measurement.
_RATE_SPREAD = 1.5
_NOISE = 0.02


def as_tensor(values: FloatArray) -> Tensor:
    """Single precision, in which everything is trained."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


@dataclass(frozen=True)
class Support:
    """What t tasks adapt to.

    Attributes:
        inputs: (n, i), the same configs for all.
        labels: (t, n) normalised latencies.
        weights: (t, n) of the squared errors, 0 for a label that is not known.
        embedding: (t, r).
    """

    inputs: Tensor
    labels: Tensor
    weights: Tensor
    embedding: Tensor


@dataclass(frozen=True)
class Episode:
    """Some tasks with what the adapted network is judged by: inputs (t, q, i), labels (t, q)."""

    support: Support
    inputs: Tensor
    labels: Tensor


def normalised(references: FloatArray, latency: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Embeddings (t, r) and labels (t, n) of devices.

    Both are normalised by the minimum and range of the references, so that a device's speed does
    not count and nothing else is measured.

    Args:
        references: (t, r) latencies of the references in ms.
        latency: (t, n), or (n,) for all, in ms.
    """
    low = references.min(axis=1, keepdims=True)
    # A clock of whole milliseconds may show all references equal.
    span = np.maximum(np.ptp(references, axis=1)[:, None], 1e-3 * low)
    return (references - low) / span, _LOWEST + _SPAN * (latency - low) / span


@dataclass(frozen=True)
class Devices:
    """The devices of a table.

    Attributes:
        inputs: (p, i) of the table's configs.
        labels: (d, p) normalised latencies, NaN where not known.
        references: (r,) row numbers of the reference configs.
        embedding: (d, r).
        smooth: (m, p) latencies of some of the devices by their regressions, of mean 1.
        costs: (p, k) what configs cost in choices and amounts, each of mean 1.
    """

    inputs: FloatArray
    labels: FloatArray
    references: NDArray[np.int64]
    embedding: FloatArray
    smooth: FloatArray
    costs: FloatArray

    @classmethod
    def of(
        cls,
        tables: LatencyTables,
        models: DeviceModels,
        encoding: InputEncoding,
        rows: NDArray[np.int64],
    ) -> Self:
        """Normalise every device by its own references.

        A reference that a device has not measured is filled in from what it has.

        Args:
            tables: Of different configs.
            models: Regressions of those devices that made-up ones are mixed from.
            encoding: Configs -> inputs of the network.
            rows: Row numbers of the references (r,).
        """
        latency = np.stack(list(tables.latencies.values()))
        references = latency[:, rows]
        for device in np.flatnonzero(np.isnan(references).any(axis=1)):
            known = np.flatnonzero(~np.isnan(latency[device]))[:_MOST_KNOWN]
            measured = np.log(latency[device, known])
            alike = Resemblance.of(models, tables.configs.take(known), measured)
            filled = np.exp(alike(tables.configs.take(rows)))
            missing = np.isnan(references[device])
            references[device, missing] = filled[missing]
        embedding, labels = normalised(references, latency)
        smooth = np.exp(models(tables.configs) - models.level).T
        smooth /= smooth.mean(axis=1, keepdims=True)
        inputs = encoding(tables.configs)
        return cls(inputs, labels, rows, embedding, smooth, _costs(tables.configs))

    @cached_property
    def queries(self) -> tuple[NDArray[np.int64], ...]:
        """Row numbers of each device's known latencies that are no references."""
        known = ~np.isnan(self.labels)
        known[:, self.references] = False
        return tuple(np.flatnonzero(row) for row in known)

    def support(self, which: Sequence[int]) -> Support:
        """The references of some devices."""
        return self._support(self.labels[list(which)], self.embedding[list(which)])

    def _support(self, labels: FloatArray, embedding: FloatArray) -> Support:
        own = labels[:, self.references]
        known = ~np.isnan(own)
        return Support(
            as_tensor(self.inputs[self.references]),
            as_tensor(np.where(known, own, 0.0)),
            as_tensor(known.astype(np.float64)),
            as_tensor(embedding),
        )

    def episode(
        self, training: Sequence[int], settings: HelpSettings, rng: np.random.Generator
    ) -> Episode:
        """Tasks drawn from some of the devices, and made-up ones."""
        made = round(settings.made_up * settings.tasks)
        real = rng.permutation(training)[: settings.tasks - made]
        rows = [rng.choice(self.queries[device], settings.queries) for device in real]
        others = np.setdiff1d(np.arange(len(self.inputs)), self.references)
        rows += [rng.choice(others, settings.queries) for _ in range(made)]
        latency = self.made_up(made, rng)
        embedding, labels = normalised(latency[:, self.references], latency)
        embedding = np.concatenate([self.embedding[real], embedding])
        labels = np.concatenate([self.labels[real], labels])
        # [t, q]
        drawn = np.stack(rows)
        return Episode(
            self._support(labels, embedding),
            as_tensor(self.inputs[drawn]),
            as_tensor(np.take_along_axis(labels, drawn, axis=1)),
        )

    def made_up(self, count: int, rng: np.random.Generator) -> FloatArray:
        """Latencies (t, p) of devices that might be.

        A random mixture of the other devices joins, in a random share, random rates of choices and
        amounts: so the network sees more devices than there are, and learns to read from the
        embedding what is dear on one.
        """
        mixture = rng.dirichlet(np.full(len(self.smooth), 0.5), count) @ self.smooth
        rates = np.exp(rng.normal(0.0, _RATE_SPREAD, (count, self.costs.shape[1])))
        additive = rates @ self.costs.T
        additive /= additive.mean(axis=1, keepdims=True)
        share = rng.random((count, 1))
        latency = (1.0 - share) * mixture + share * additive
        noisy: FloatArray = latency * np.exp(rng.normal(0.0, _NOISE, latency.shape))
        return noisy


def _costs(configs: Configs) -> FloatArray:
    counts = np.column_stack([choice_counts(configs), configs.amounts])
    mean = counts.mean(axis=0)
    costs: FloatArray = counts[:, mean > 0] / mean[mean > 0]
    return costs
