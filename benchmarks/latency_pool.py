"""Few-shot latency prediction on the devices that this machine can be, a family left out each time.

Measures the digits space on the pool (`netcarve device pool build`), or goes on with a table that
is there already, then predicts every device from ten samples of it with its whole family left out,
beside MACs and beside the ceiling, the rank correlation of two measurements of the same binaries.
Nothing else should run meanwhile.

    python benchmarks/latency_pool.py [--home DIR] [--minutes M] [--configs N] [--json FILE]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from itertools import combinations
from pathlib import Path

import numpy as np
from _figures import report, show_figures

from predictors import spearman
from search.latency_eval import PredictorScores, evaluate_table, find_table
from search.latency_tables import predictor_tables
from search.pool_build import build_pool
from search.workspace import open_store

SPACE = "mobilenetv3_digits"
COUNT, SEEDS = 10, 10
TARGETS = {
    "devices": [">=", 10],
    "families": [">=", 4],
    "pairs_under_90": [">=", 4],
    "spearman_over_ceiling": [">=", 0.95],
    "least_above_macs": [">=", 0.0],
    "coverage": [">=", 80.0],
    "coverage_most": ["<=", 97.0],
}


def main() -> int:
    """Measure, evaluate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, help="home of the table; default: a temporary one")
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--configs", type=int, default=110)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = arguments.home or Path(folder)
        with open_store(home, None) as store:
            build_pool(
                store, SPACE, report, configs=arguments.configs, minutes=arguments.minutes,
                repeats=0.6,
            )  # fmt: skip
            table = find_table(store, SPACE, None)
    tables = predictor_tables(table)
    scored = evaluate_table(table, ("adaptive", "macs"), COUNT, SEEDS)
    adaptive = {s.device: s for s in scored if s.predictor == "adaptive"}
    macs = {s.device: s for s in scored if s.predictor == "macs"}
    print(
        f"{'device':<26} {'family':<14} {'Spearman':>8} {'ceiling':>8} {'MAPE %':>7} "
        f"{'in 90 %':>7} {'MACs':>6}"
    )
    for device, own in adaptive.items():
        print(
            f"{device:<26} {own.family:<14} {own.spearman:>8.3f} {_ceiling(own):>8.3f} "
            f"{own.mape:>7.1f} {100 * own.coverage90:>7.1f} {macs[device].spearman:>6.3f}"
        )
    low = 0
    for first, second in combinations(tables.devices, 2):
        a, b = tables.latencies[first], tables.latencies[second]
        both = ~np.isnan(a) & ~np.isnan(b)
        low += spearman(a[both], b[both]) < 0.9
    covered = 100 * float(np.mean([s.coverage90 for s in adaptive.values()]))
    figures = {
        "devices": len(adaptive),
        "families": len({s.family for s in adaptive.values()}),
        "configs": len(tables.configs),
        "pairs_under_90": int(low),
        "spearman": float(np.mean([s.spearman for s in adaptive.values()])),
        "spearman_over_ceiling": float(
            np.mean([s.spearman / _ceiling(s) for s in adaptive.values()])
        ),
        "mape": float(np.mean([s.mape for s in adaptive.values()])),
        "least_above_macs": min(adaptive[d].spearman - macs[d].spearman for d in adaptive),
        "coverage": covered,
        "coverage_most": covered,
    }
    show_figures(figures, TARGETS, arguments.json)
    return 0


def _ceiling(scored: PredictorScores) -> float:
    return float("nan") if scored.ceiling is None else scored.ceiling


if __name__ == "__main__":
    sys.exit(main())
