"""Made-up devices of a made-up space of tables, and NAS-Bench-201's where it is at hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from predictors import Configs, ConfigSchema, LatencyTables
from predictors.latency import Amount, Column

OPS = ("none", "skip", "conv1", "conv3", "pool")
_MACS = np.array([0.0, 0.0, 1.0, 9.0, 0.2])
NASBENCH = Path(__file__).parents[4] / "shared" / "latency" / "data" / "nasbench201"


def edges_schema(macs=True):
    columns = tuple(Column(f"e{n}", OPS, "e") for n in range(6))
    return ConfigSchema(columns, (Amount("feat_macs", 0.1),) if macs else ())


def edges(codes, macs=True):
    amounts = (3.0 + _MACS[codes].sum(axis=1))[:, None] if macs else np.zeros((len(codes), 0))
    return Configs(edges_schema(macs), codes.astype(np.int16), amounts)


def random_edges(count, seed, macs=True):
    """Different configs."""
    numbers = np.random.default_rng(seed).permutation(5**6)[:count]
    return edges(numbers[:, None] // 5 ** np.arange(6) % 5, macs)


def edges_device(seed, kind):
    """Configs -> latency in ms. Devices of one kind share what is dear; an operator costs more
    where it reads from another one."""
    costs = np.exp(np.random.default_rng(kind).normal(0, 1.3, 5))
    rng = np.random.default_rng([kind, seed])
    costs = np.concatenate([[0.02, 0.1], costs[2:]]) * np.exp(rng.normal(0, 0.15, 5))
    speed = np.exp(rng.normal(0, 1.5))

    def latency(configs):
        own = costs[configs.codes.astype(np.int64)]
        chained = 0.3 * np.sqrt(own[:, :3] * own[:, 3:]).sum(axis=1)
        return speed * (0.3 + own.sum(axis=1) + chained)

    return latency


def edges_tables(configs, kinds=(1, 2, 3), each=2, noise=0.02):
    latencies, families = {}, {}
    for kind in kinds:
        for seed in range(each):
            rng = np.random.default_rng([kind, seed, 9])
            name = f"device{kind}-{seed}"
            noisy = np.exp(rng.normal(0, noise, len(configs)))
            latencies[name] = edges_device(seed, kind)(configs) * noisy
            families[name] = f"kind{kind}"
    return LatencyTables(configs, latencies, families)


def nasbench(rows, test, devices):
    """Tables of `rows` pool configs, and (configs, latencies) of `test` others."""
    if not NASBENCH.exists():
        pytest.skip("the NAS-Bench-201 latency tables are not here")
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(NASBENCH / "data.parquet")
    columns = json.loads((NASBENCH / "splits.json").read_text())["arch_cols"]
    schema = ConfigSchema(
        tuple(Column(name, (0, 1, 2, 3, 4), "e") for name in columns), (Amount("feat_macs", 1e-8),)
    )
    order = np.random.default_rng(0).permutation(len(frame))

    def part(which):
        some = frame.iloc[which]
        configs = Configs(
            schema,
            some[columns].to_numpy(np.int16),
            some[["feat_macs"]].to_numpy(float),
        )
        return LatencyTables(configs, {d: some[d].to_numpy(float) for d in devices})

    return part(order[:rows]), part(order[-test:])
