"""How well latencies of an unseen device are predicted, judged on a table of the store."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from predictors import LATENCY_PREDICTORS, evaluate
from predictors.latency import DeviceScores
from search.errors import SearchError
from search.latency_tables import predictor_tables, space_key
from search.progress import Progress
from search.spaces_view import show_space
from search.store import Store
from search.store_latencies import StoredTable
from spaces import UnknownNameError


@dataclass(frozen=True)
class PredictorScores:
    """A predictor on one device, mean over the seeds.

    Attributes:
        predictor: Its name.
        device: The device.
        family: Its family, which was left out.
        spearman: Rank correlation of predicted and measured latency.
        kendall: Kendall's tau-b.
        mape: Mean absolute error in percent.
        coverage90: Share of the configs inside their 90 % interval.
        ceiling: Rank correlation of two measurements, None without second ones.
    """

    predictor: str
    device: str
    family: str
    spearman: float
    kendall: float
    mape: float
    coverage90: float
    ceiling: float | None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return asdict(self)


def find_table(store: Store, space: str | None, table: str | None) -> StoredTable:
    """A latency table by its name, or the one of a space.

    Raises:
        UnknownNameError: No such table or space.
        SearchError: Neither or both are given, or the space has no table, or several.
    """
    if (space is None) == (table is None):
        raise SearchError("give a space or a latency table: --space NAME or --table NAME")
    if table is not None:
        return store.latencies.read(table)
    assert space is not None
    names = store.latencies.of_space(space_key(show_space(store, space).space))
    if not names:
        raise SearchError(
            f"the space {space!r} has no latency table; measure one: "
            f"netcarve device pool build --space {space}"
        )
    if len(names) > 1:
        raise SearchError(
            f"the space {space!r} has several latency tables: {', '.join(names)}; choose one "
            "with --table"
        )
    return store.latencies.read(names[0])


def evaluate_table(
    table: StoredTable,
    predictors: Sequence[str],
    count: int,
    seeds: int,
    devices: Collection[str] = (),
    progress: Progress = lambda _phase, _done, _total: None,
) -> list[PredictorScores]:
    """Leave one family out after the other (see `predictors.latency.evaluate`).

    Args:
        table: Of the store.
        predictors: Names of latency predictors.
        count: Measurements of the unseen device.
        seeds: Divisions into pool and test configs, over which scores are averaged.
        devices: The devices to predict; all when empty.
        progress: Told how far it is.

    Returns:
        An entry for each predictor and device.

    Raises:
        UnknownNameError: No such predictor or device.
        TooFewSamplesError: A device has too few latencies.
        InvalidTargetError, TableError: The table cannot be learnt from.
    """
    tables = predictor_tables(table)
    for device in devices:
        if device not in tables.devices:
            raise UnknownNameError("device of the table", device, tables.devices)
    repeats = {device: table.repeats[device] for device in tables.devices}
    found = []
    kinds = [LATENCY_PREDICTORS.get(name) for name in predictors]
    for number, (name, kind) in enumerate(zip(predictors, kinds, strict=True)):
        progress("evaluation of predictors", number, len(predictors))
        scored = evaluate(kind, tables, count, range(seeds), repeats=repeats, devices=devices)
        wanted = devices or tables.devices
        found += [_mean(name, [s for s in scored if s.device == device]) for device in wanted]
    progress("evaluation of predictors", len(predictors), len(predictors))
    return found


def _mean(predictor: str, scored: Sequence[DeviceScores]) -> PredictorScores:
    ceilings = [s.ceiling for s in scored if s.ceiling is not None]
    return PredictorScores(
        predictor,
        scored[0].device,
        scored[0].family,
        spearman=float(np.mean([s.spearman for s in scored])),
        kendall=float(np.mean([s.kendall for s in scored])),
        mape=float(np.mean([s.mape for s in scored])),
        coverage90=float(np.mean([s.coverage90 for s in scored])),
        ceiling=float(np.mean(ceilings)) if ceilings else None,
    )
