"""The latency predictor of a device in a job, with what it learns from tables of other devices.

A job asks the store for tables once for each device and keeps the answer, so that its predictions
do not change when others measure more, and a replay predicts what the replayed job did.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from predictors import (
    LATENCY_PREDICTORS,
    Configs,
    KernelLatencies,
    LatencyPredictor,
    LatencyTables,
    SpaceEncoding,
)
from search.latency_tables import load_tables
from search.models import JobRow
from search.replay import replayed
from search.store import Store
from spaces import Population, SearchSpace

# A larger table is thinned: predictors read no more, and a job keeps what it learns from.
_MOST_CONFIGS = 1000


@dataclass(frozen=True)
class DeviceLatency:
    """A predictor of one device's latency, and how it reads populations.

    Attributes:
        encoding: Population -> configs.
        predictor: It has learnt from other devices, and is never fitted itself.
    """

    encoding: SpaceEncoding
    predictor: LatencyPredictor

    def unfitted(self) -> LatencyPredictor:
        """A predictor that may be fitted, and shares what was learnt."""
        return copy.copy(self.predictor)

    def choose(self, pool: Population, count: int, rng: np.random.Generator) -> Population:
        """The configs (count, d) of a pool (p, d) that are worth measuring first."""
        return pool[self.predictor.choose(self.encoding(pool), count, rng)]


def device_latency(
    store: Store,
    job: JobRow,
    device: str,
    space: SearchSpace,
    predictor: str,
    kernel_latencies: KernelLatencies | None = None,
) -> DeviceLatency:
    """The predictor that a job uses for a device, ready to be fitted.

    Args:
        store: The store.
        job: The job, which keeps the tables that are found here the first time.
        device: One of its devices.
        space: What the job may use there.
        predictor: Name of the latency predictor.
        kernel_latencies: See `SpaceEncoding`.

    Raises:
        UnknownNameError: No such predictor.
    """
    encoding = SpaceEncoding(space, kernel_latencies)
    found = LATENCY_PREDICTORS.get(predictor)(encoding.schema)
    tables = _job_tables(store, job, device, space, encoding)
    return DeviceLatency(encoding, found if tables is None else found.learn(tables))


def _job_tables(
    store: Store, job: JobRow, device: str, space: SearchSpace, encoding: SpaceEncoding
) -> LatencyTables | None:
    name = f"latency-tables/{device}"
    stored = store.jobs.checkpoint(job.id, name)
    if stored is None:
        source = replayed(job)
        if source is not None:
            stored = store.jobs.checkpoint(source, name) or {"rows": []}
        else:
            stored = _to_json(load_tables(store, space, encoding, exclude=(device,)))
        store.jobs.save_checkpoint(job.id, name, stored)
    if not stored["rows"]:
        return None
    latencies = {
        label: np.array([np.nan if ms is None else ms for ms in column], dtype=np.float64)
        for label, column in stored["latencies"].items()
    }
    configs = encoding(np.array(stored["rows"], dtype=np.int16))
    return LatencyTables(configs, latencies, stored["families"])


def _to_json(tables: LatencyTables | None) -> dict[str, Any]:
    if tables is None:
        return {"rows": []}
    count = len(tables.configs)
    kept = np.linspace(0, count - 1, min(count, _MOST_CONFIGS)).astype(np.int64)
    return {
        "rows": _population(tables.configs.take(kept)).tolist(),
        "latencies": {
            label: [None if np.isnan(ms) else float(ms) for ms in column[kept]]
            for label, column in tables.latencies.items()
        },
        "families": dict(tables.families),
    }


def _population(configs: Configs) -> Population:
    """Canonical rows of a space's configs: genes of skipped blocks are 0."""
    return np.maximum(configs.codes, 0).astype(np.int16)
