"""Leave-one-family-out evaluation of a latency predictor on tables."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predictors.errors import TableError, TooFewSamplesError
from predictors.latency.base import LatencyPredictor
from predictors.latency.configs import ConfigSchema, FloatArray
from predictors.latency.tables import LatencyTables
from predictors.scores import scores, spearman


@dataclass(frozen=True)
class DeviceScores:
    """How well one device was predicted from measurements of a few configs.

    Attributes:
        device: The device.
        family: Its family, whose devices were not learnt from.
        seed: Of the draw of pool and test configs.
        spearman: Rank correlation of predicted and measured latency over the test configs.
        kendall: Kendall's tau-b.
        mape: Mean absolute error in percent.
        coverage90: Share of the test configs inside their 90 % interval.
        ceiling: Rank correlation of two measurements of the test configs, None without a second.
    """

    device: str
    family: str
    seed: int
    spearman: float
    kendall: float
    mape: float
    coverage90: float
    ceiling: float | None = None

    @property
    def of_ceiling(self) -> float | None:
        """Rank correlation over the ceiling, None where there is none above 0."""
        return self.spearman / self.ceiling if self.ceiling and self.ceiling > 0 else None


def evaluate(
    make: Callable[[ConfigSchema], LatencyPredictor],
    tables: LatencyTables,
    count: int,
    seeds: Sequence[int] = (0,),
    *,
    repeats: Mapping[str, FloatArray] | None = None,
    devices: Collection[str] = (),
    test_share: float = 1 / 3,
) -> list[DeviceScores]:
    """Leave every family out: learn from the others, then adapt to each of its devices.

    Configs are divided into a pool and test configs for each seed. A predictor learns from what
    the other families took for the pool, chooses `count` configs of the pool, is told the device's
    latencies of them, and predicts the test configs.

    Args:
        make: Schema -> a new predictor, such as its class.
        tables: Latencies of at least two families, or of one for a predictor that needs no others.
        count: Measurements of a device.
        seeds: One division into pool and test configs each.
        repeats: Device -> a second measurement (P,) in ms of the same configs, NaN where there is
            none; gives the ceiling.
        devices: The devices to predict; all when empty.
        test_share: Share of the configs that are test configs.

    Returns:
        For each seed and family one entry for each device of it.

    Raises:
        TooFewSamplesError: A device has too few latencies in the pool, or fewer than 2 to test.
        TableError: A repeat of an unknown device or length, or a share not between 0 and 1.
    """
    if not 0 < test_share < 1:
        raise TableError(f"test_share is {test_share}, must be between 0 and 1")
    for device, values in (repeats or {}).items():
        if device not in tables.devices or values.shape != (len(tables.configs),):
            raise TableError(
                f"a repeat of {device!r} with latencies of shape {values.shape} does not belong to "
                f"{len(tables.configs)} configs on {', '.join(tables.devices)}"
            )
    distinct = tables.configs.distinct()
    families = list(dict.fromkeys(tables.family(device) for device in tables.devices))
    found = []
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(distinct)
        tested = max(2, round(test_share * len(order)))
        test, pool = np.sort(order[:tested]), np.sort(order[tested:])
        for family in families:
            members = tables.members(family)
            wanted = [d for d in members if not devices or d in devices]
            if not wanted:
                continue
            predictor = make(tables.configs.schema)
            others = tables.without(members)
            if others.devices:
                predictor.learn(others.take(pool))
            for device in wanted:
                again = (repeats or {}).get(device)
                scored = _device(predictor, tables, device, pool, test, count, seed)
                ceiling = _ceiling(tables.latencies[device], again, test)
                found.append(DeviceScores(device, family, seed, **scored, ceiling=ceiling))
    return found


def _device(
    predictor: LatencyPredictor,
    tables: LatencyTables,
    device: str,
    pool: NDArray[np.int64],
    test: NDArray[np.int64],
    count: int,
    seed: int,
) -> dict[str, float]:
    latency = tables.latencies[device]
    pool, test = (rows[~np.isnan(latency[rows])] for rows in (pool, test))
    if len(pool) < count or len(test) < 2:
        raise TooFewSamplesError(
            f"device {device!r} has {len(pool)} latencies in the pool and {len(test)} to test; "
            f"{count} and 2 are needed"
        )
    chosen = predictor.choose(tables.configs.take(pool), count, np.random.default_rng(seed))
    measured = pool[chosen]
    predictor.fit(tables.configs.take(measured), latency[measured])
    return scores(latency[test], *predictor.predict(tables.configs.take(test)))


def _ceiling(first: FloatArray, second: FloatArray | None, test: NDArray[np.int64]) -> float | None:
    if second is None:
        return None
    both = test[~np.isnan(first[test]) & ~np.isnan(second[test])]
    return spearman(first[both], second[both]) if len(both) >= 2 else None
