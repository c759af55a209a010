"""HELP: few-shot latency of an unseen device by meta-learning over other devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from predictors.errors import NotFittedError, TooFewSamplesError
from predictors.latency.base import (
    LATENCY_PREDICTORS,
    Arrays,
    LatencyPredictor,
    Prediction,
    State,
)
from predictors.latency.choices import choice_counts
from predictors.latency.configs import Configs, ConfigSchema, FloatArray
from predictors.latency.device_models import DeviceModels
from predictors.latency.help_settings import HelpSettings
from predictors.latency.tables import LatencyTables
from predictors.sample_design import d_optimal
from predictors.scores import Z90

if TYPE_CHECKING:
    from predictors.latency.help_adaptation import Adaptation
    from predictors.latency.help_device import MetaLearned

# With fewer families none is spared to select the state of the meta-training.
_LEAST_FAMILIES = 4
# References are chosen among so many times their number of random configs.
_CANDIDATES = 4
# Errors on devices that were learnt from are too good: they may widen intervals, not narrow them.
_CALIBRATION = {True: (0.5, 3.0), False: (1.0, 3.0)}


@LATENCY_PREDICTORS.register("help")
class HelpLatencyPredictor(LatencyPredictor):
    """Hardware-adaptive efficient latency prediction (Lee et al., NeurIPS 2021).

    Every other device is a task of a meta-training. A device is embedded by its latencies of a few
    reference configs; the embedding enters the network and modulates its initialisation, and a
    step or two with learned rates on the measured configs adapts the network to the device.

    Changes to the paper:

    - Latencies are normalised by the references alone, which are also what the network adapts to;
      the paper's code reads the range of the whole pool, and measures ten configs more.
    - Most of an episode's devices are made up (see `help_tasks.Devices.made_up`): of five real ones
      that resemble each other an embedding learns little.
    - Configs enter as one-hot choices, not as graphs; on request with their amounts.
    - References that were not measured, or whose measurement is far off what the others predict,
      are filled in by comparing the device with regressions of the other devices' tables
      (`Resemblance`); measurements of other configs join the references in adapting the network.
      So any samples will do, and those that `choose` gives do best.
    - With at least four families one is held out to select the state; else the last one is taken.
    - The average over draws of z is taken of the adapted parameters, not of what they predict.
    - The standard deviation joins the spread over draws of z with the errors of samples that were
      left out in turn, scaled to cover held-out devices.

    Args:
        schema: See `LatencyPredictor`.
        references: How many configs embed a device, and how many measurements suit it best.
        settings: How to meta-train.
        progress: Called in `learn` with the episodes done and their total.
    """

    name = "help"
    min_samples = 5

    def __init__(
        self,
        schema: ConfigSchema,
        references: int = 10,
        settings: HelpSettings | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        super().__init__(schema)
        if references < self.min_samples:
            raise TooFewSamplesError(
                f"{self.name} needs at least {self.min_samples} references, got {references}"
            )
        self._count = references
        self.settings = settings or HelpSettings()
        self._progress = progress or (lambda done, total: None)
        self._meta: MetaLearned | None = None

    @property
    def references(self) -> Configs:
        """The configs that embed a device, most informative first.

        Raises:
            NotFittedError: `learn` has not been called.
        """
        return self._learned().references

    def _learned(self) -> MetaLearned:
        if self._meta is None:
            raise NotFittedError(f"{self.name} needs tables of other devices: call learn first")
        return self._meta

    def _learn(self, tables: LatencyTables) -> None:
        from predictors.latency.help_adaptation import network_encoding
        from predictors.latency.help_device import MetaLearned
        from predictors.latency.help_tasks import Devices
        from predictors.latency.help_training import meta_train

        tables = tables.take(tables.configs.distinct())
        if len(tables.configs) <= self._count:
            raise TooFewSamplesError(
                f"{self.name}: a table of {len(tables.configs)} different configs cannot hold "
                f"{self._count} references and others to predict"
            )
        rows = _reference_rows(tables, self._count, self.settings.seed)
        held_out = _held_out_family(tables)
        models = DeviceModels.of(tables.without(held_out))
        encoding = network_encoding(models.encoding, self.settings)
        devices = Devices.of(tables, models, encoding, rows)
        queried = [n for n in range(len(tables.devices)) if len(devices.queries[n])]
        validation = [n for n in queried if tables.devices[n] in held_out]
        training = [n for n in queried if tables.devices[n] not in held_out]
        if not training:
            raise TooFewSamplesError(
                f"{self.name}: no device has latencies beside those of the references"
            )
        learned = meta_train(devices, training, validation, self.settings, self._progress)
        self._meta = MetaLearned(learned, models, tables.configs.take(rows), self.settings)
        least, most = _CALIBRATION[bool(validation)]
        ratios = [self._error_ratios(tables, n, rows) for n in validation or training]
        pooled = np.concatenate(ratios)
        found = float(np.quantile(pooled, 0.9)) / Z90 if pooled.size else 1.0
        self._meta.calibration = float(np.clip(found, least, most))

    def _error_ratios(
        self, tables: LatencyTables, device: int, rows: NDArray[np.int64]
    ) -> FloatArray:
        """Errors over standard deviations (n,) on a device of the table, seen by its references."""
        latency = tables.latencies[tables.devices[device]]
        known = ~np.isnan(latency)
        support = rows[known[rows]]
        known[rows] = False
        queries = np.flatnonzero(known)[:500]
        if len(support) < self.min_samples or np.ptp(latency[support]) == 0:
            return np.zeros(0)
        adapted = self._learned().adapt(tables.configs.take(support), latency[support])
        mean, std = adapted.predict(tables.configs.take(queries))
        ratios: FloatArray = np.abs(latency[queries] - mean) / std
        return ratios

    def _design(self, pool: Configs, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        meta = self._learned()
        inputs = meta.models.encoding(pool)
        chosen: list[int] = []
        free = np.ones(len(pool), dtype=np.bool_)
        # A reference that the pool lacks is replaced by the config most like it.
        for wanted in meta.models.encoding(meta.references)[:count]:
            distance = ((inputs - wanted) ** 2).sum(axis=1)
            chosen.append(int(np.argmin(np.where(free, distance, np.inf))))
            free[chosen[-1]] = False
        more = rng.permutation(np.flatnonzero(free))[: count - len(chosen)]
        return np.concatenate([np.array(chosen, dtype=np.int64), more.astype(np.int64)])

    def _fit(self, samples: Configs, latency: FloatArray) -> None:
        self._adaptation: Adaptation = self._learned().adapt(samples, latency)

    def _predict(self, configs: Configs) -> Prediction:
        return self._adaptation.predict(configs)

    def _state(self) -> State:
        settings: dict[str, Any] = {
            "references": self._count,
            "settings": asdict(self.settings),
        }
        arrays: dict[str, NDArray[Any]] = {}
        if self._meta is not None:
            settings["learned"], arrays = self._meta.state()
        if self._fitted:
            settings["adapted"], adapted = self._adaptation.state()
            arrays |= adapted
        return settings, arrays

    def _restore(self, settings: Mapping[str, Any], arrays: Arrays) -> None:
        self._count = int(settings["references"])
        self.settings = HelpSettings(**settings["settings"])
        if "learned" in settings:
            from predictors.latency.help_adaptation import Adaptation
            from predictors.latency.help_device import MetaLearned

            self._meta = MetaLearned.restore(
                self.schema, self.settings, settings["learned"], arrays
            )
            if "adapted" in settings:
                self._adaptation = Adaptation.restore(
                    self._meta.encoding, settings["adapted"], arrays
                )


def _reference_rows(tables: LatencyTables, count: int, seed: int) -> NDArray[np.int64]:
    """Rows of the references (r,): a D-optimal design of how often choices are made.

    It is taken from a few random rows, since references must resemble the configs that are
    predicted, and the design of a whole table is all extremes.
    """
    rng = np.random.default_rng(seed)
    known = (~np.isnan(np.stack(list(tables.latencies.values())))).sum(axis=0)
    order = rng.permutation(len(known))
    # Rows that most devices have measured come first.
    rows = order[np.argsort(-known[order], kind="stable")][: _CANDIDATES * count]
    counts = choice_counts(tables.configs)
    spread = counts.std(axis=0)
    varies = spread > 0
    scaled = ((counts - counts.mean(axis=0)) / np.where(varies, spread, 1.0))[rows]
    design = d_optimal(np.column_stack([np.ones(len(rows)), scaled]), count, rng, ridge=0.1)
    return rows[design].astype(np.int64)


def _held_out_family(tables: LatencyTables) -> tuple[str, ...]:
    """The devices that select the state: the smallest family, which costs the training least."""
    families = sorted({tables.family(device) for device in tables.devices})
    if len(families) < _LEAST_FAMILIES:
        return ()
    return min((tables.members(family) for family in families), key=len)
