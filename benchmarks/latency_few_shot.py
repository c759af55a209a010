"""Few-shot latency prediction on public tables of real devices, one family of devices left out.

Four tasks: the phones, GPUs and CPUs of NAS-Bench-201's tables (each family predicted from the
others), and once-for-all configs on the GPUs of another model. For each seed a pool of 900 configs
and 1,000 test configs are drawn; a predictor sees the pool on the training devices, asks
for n latencies of the test device, and predicts the test configs. The score is Spearman's rank
correlation over the middle 80 % of the test configs by true latency, as HELP's authors score.

Printed for every predictor and task: mean over devices and seeds, error in %, coverage of the 90 %
intervals, and the difference to the default on the same device and seed with its standard error.
Beside them what the tables themselves allow: a kernel ridge regression on all 900 latencies of the
test device, and, on the first seeds, gradient boosting on the test device's latency of every row
that is not a test row (NAS-Bench-201: 14,625, once-for-all: 4,000). The default at n=5 and n=20
follows, then how long it takes.

Reads `nasbench201/` and `ofa/` (`data.parquet` and `splits.json` each) in `--data`.

    python benchmarks/latency_few_shot.py [--data DIR] [--seeds N] [--only NAME ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from _figures import show_figures

from predictors import LATENCY_PREDICTORS, Configs, ConfigSchema, LatencyTables, scores, spearman
from predictors.latency import Amount, Column

DATA = Path(__file__).parents[2] / "shared" / "latency" / "data"
DEFAULT, FEW, MANY = "adaptive", 5, 20
COUNT = 10
POOL, TESTED = 900, 1000
BOOSTED_SEEDS = 3
TASKS = ("phone", "gpu", "cpu", "ofa")
FAMILIES = {
    "gpu": ("1080ti_1", "1080ti_32", "1080ti_256"),
    "cpu": ("silver_4114", "silver_4210r"),
    "phone": ("samsung_a50", "pixel3", "essential_ph_1", "samsung_s7"),
}
PREDICTORS = (DEFAULT, "help", "scratch", "ridge", "nearest", "lookup", "additive", "macs")
TARGETS = {
    "phone": [">=", 0.915],
    "gpu": [">=", 0.981],
    "cpu": [">=", 0.967],
    "ofa": [">=", 0.945],
    "n5_loss": ["<=", 0.03],
    "help_nb201": [">=", 0.88],
    "help_over_scratch": [">=", 0.2],
    "coverage": [">=", 80.0],
    "coverage_most": ["<=", 97.0],
    "adapt_cpu_s": ["<=", 5.0],
    "predict_100k_s": ["<=", 1.0],
    "help_train_minutes": ["<=", 10.0],
}


@dataclass(frozen=True)
class Problem:
    """One task with one seed: what a predictor may see, and the truth.

    `trained_test_ms`, latencies of the test configs on the devices that are seen, is for choosing
    settings; `rest` and `rest_ms`, every row that is not a test row on the test devices, for what
    the tables allow. No predictor gets them.
    """

    tables: LatencyTables
    test: Configs
    pool_ms: dict[str, Any]
    test_ms: dict[str, Any]
    trained_test_ms: dict[str, Any]
    rest: Configs
    rest_ms: dict[str, Any]


@dataclass(frozen=True)
class Score:
    """Of a predictor on a device and seed."""

    device: str
    seed: int
    middle: float
    mape: float
    coverage: float


def load(task: str, seed: int, data: Path) -> Problem:
    """The tables of a task, divided by a seed."""
    folder = data / ("ofa" if task == "ofa" else "nasbench201")
    meta = json.loads((folder / "splits.json").read_text())
    columns_of = pq.read_table(folder / "data.parquet").to_pydict()
    frame = {name: np.array(values, dtype=np.float64) for name, values in columns_of.items()}
    split = meta["help"]
    tested = FAMILIES.get(task) or (*split["meta_valid"], *split["meta_test"])
    trained = [device for device in split["meta_train"] if device not in tested]
    order = np.random.default_rng(20_000 + seed).permutation(meta["n_arch"])
    pool, test, rest = np.sort(order[:POOL]), order[-TESTED:], order[:-TESTED]
    codes = np.stack([frame[name] for name in meta["arch_cols"]], axis=1).astype(np.int64)
    amounts = np.stack([frame[name] for name in meta["feat_cols"]], axis=1)
    columns = tuple(
        Column(name, tuple(int(v) for v in np.unique(codes[:, i])), re.sub(r"\d+$", "", name))
        for i, name in enumerate(meta["arch_cols"])
    )
    schema = ConfigSchema(
        columns,
        tuple(
            Amount(name, float(1.0 / amounts[pool, i].mean()))
            for i, name in enumerate(meta["feat_cols"])
        ),
    )
    places = np.stack(
        [np.searchsorted(column.choices, codes[:, i]) for i, column in enumerate(columns)], axis=1
    ).astype(np.int16)
    everything = Configs(schema, places, amounts)
    known = {device: frame[device] for device in (*trained, *tested)}
    return Problem(
        LatencyTables(everything.take(pool), {d: known[d][pool] for d in trained}),
        everything.take(test),
        {device: known[device][pool] for device in tested},
        {device: known[device][test] for device in tested},
        {device: known[device][test] for device in trained},
        everything.take(rest),
        {device: known[device][rest] for device in tested},
    )


def middle_spearman(truth: Any, predicted: Any) -> float:
    """Rank correlation over the middle 80 % by true latency."""
    order = np.argsort(truth, kind="stable")[int(0.1 * len(truth)) : int(0.9 * len(truth))]
    return spearman(truth[order], predicted[order])


def measure(
    make: Callable[[ConfigSchema], Any], problems: Sequence[Problem], counts: Sequence[int]
) -> dict[int, list[Score]]:
    """Scores of a predictor for each number of samples; it learns once for all of them."""
    found: dict[int, list[Score]] = {count: [] for count in counts}
    for seed, problem in enumerate(problems):
        pool = problem.tables.configs
        predictor = make(pool.schema).learn(problem.tables)
        for count, (device, latency) in product(counts, problem.pool_ms.items()):
            rows = predictor.choose(pool, count, np.random.default_rng(seed))
            predictor.fit(pool.take(rows), latency[rows])
            mean, std = predictor.predict(problem.test)
            truth = problem.test_ms[device]
            whole = scores(truth, mean, std)
            middle = middle_spearman(truth, mean)
            score = Score(device, seed, middle, whole["mape"], whole["coverage90"])
            found[count].append(score)
    return found


def full_ridge(problems: Sequence[Problem]) -> float:
    """Kernel ridge on all 900 latencies of the test device."""
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.model_selection import GridSearchCV

    from predictors.latency.inputs import InputEncoding

    found = []
    grid = {"alpha": [0.01, 0.1, 1.0], "gamma": [0.003, 0.01, 0.03, 0.1]}
    for problem in problems:
        encoding = InputEncoding.of(problem.tables.configs)
        inputs, test = encoding(problem.tables.configs), encoding(problem.test)
        for device, latency in problem.pool_ms.items():
            search = GridSearchCV(KernelRidge(kernel="rbf"), grid, cv=3)
            search.fit(inputs, latency / latency.mean() - 1.0)
            found.append(middle_spearman(problem.test_ms[device], search.predict(test)))
    return float(np.mean(found))


def boosted(problems: Sequence[Problem]) -> float:
    """Gradient boosting on the test device's latency of every row that is not a test row."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    from predictors.latency.inputs import InputEncoding

    found = []
    for problem in problems:
        encoding = InputEncoding.of(problem.rest)
        counted = np.unique(problem.rest.codes)

        def inputs(configs: Configs, encoding: Any = encoding, counted: Any = counted) -> Any:
            counts = [(configs.codes == code).sum(axis=1) for code in counted]
            return np.hstack([encoding(configs), np.stack(counts, axis=1)])

        for device, latency in problem.rest_ms.items():
            model = HistGradientBoostingRegressor(max_iter=400, learning_rate=0.05, random_state=0)
            model.fit(inputs(problem.rest), np.log(latency))
            predicted = model.predict(inputs(problem.test))
            found.append(middle_spearman(problem.test_ms[device], predicted))
    return float(np.mean(found))


def mean(found: Sequence[Score], what: str = "middle") -> float:
    """Mean of a field."""
    return float(np.mean([getattr(score, what) for score in found]))


def times(data: Path) -> dict[str, float]:
    """CPU seconds of adapting, wall seconds of 100,000 predictions, minutes of HELP's training."""
    figures = {"adapt_cpu_s": 0.0, "predict_100k_s": 0.0}
    for task in ("phone", "ofa"):
        problem = load(task, 0, data)
        pool = problem.tables.configs
        predictor = LATENCY_PREDICTORS.get(DEFAULT)(pool.schema).learn(problem.tables)
        latency = next(iter(problem.pool_ms.values()))
        rows = predictor.choose(pool, COUNT, np.random.default_rng(0))
        begun = time.process_time()
        predictor.fit(pool.take(rows), latency[rows])
        figures["adapt_cpu_s"] = max(figures["adapt_cpu_s"], time.process_time() - begun)
        many = pool.take(np.random.default_rng(0).integers(0, len(pool), 100_000))
        begun = time.perf_counter()
        predictor.predict(many)
        figures["predict_100k_s"] = max(figures["predict_100k_s"], time.perf_counter() - begun)
    nine = load("ofa", 0, data).tables
    begun = time.perf_counter()
    LATENCY_PREDICTORS.get("help")(nine.configs.schema).learn(nine)
    figures["help_train_minutes"] = (time.perf_counter() - begun) / 60.0
    return figures


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", nargs="+", choices=PREDICTORS, default=PREDICTORS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not (arguments.data / "ofa").is_dir():
        print(f"no tables in {arguments.data}; name their folder with --data", file=sys.stderr)
        return 2
    problems = {
        task: [load(task, seed, arguments.data) for seed in range(arguments.seeds)]
        for task in TASKS
    }
    found: dict[tuple[str, str], list[Score]] = {}
    others: dict[tuple[str, int], float] = {}
    print(f"{'predictor':<10} {'task':<6} {'middle 80 %':>11} {'MAPE %':>8} {'in 90 %':>8}  paired")
    for name in arguments.only:
        for task in TASKS:
            counts = (COUNT, FEW, MANY) if name == DEFAULT else (COUNT,)
            measured = measure(LATENCY_PREDICTORS.get(name), problems[task], counts)
            found[name, task] = own = measured[COUNT]
            others |= {(task, count): mean(each) for count, each in measured.items()}
            paired = ""
            if name != DEFAULT and (DEFAULT, task) in found:
                difference = np.array([
                    a.middle - b.middle
                    for a, b in zip(own, found[DEFAULT, task], strict=True)
                ])  # fmt: skip
                error = difference.std(ddof=1) / np.sqrt(len(difference))
                paired = f"{difference.mean():+.3f} +- {error:.3f}"
            print(
                f"{name:<10} {task:<6} {mean(own):>11.4f} {mean(own, 'mape'):>8.1f} "
                f"{100 * mean(own, 'coverage'):>8.1f}  {paired}",
                flush=True,
            )
    for task in TASKS:
        print(f"{'900 rows':<10} {task:<6} {full_ridge(problems[task]):>11.4f}", flush=True)
    for task in TASKS:
        every = boosted(problems[task][:BOOSTED_SEEDS])
        print(f"{'every row':<10} {task:<6} {every:>11.4f}", flush=True)
    figures: dict[str, float] = {}
    if DEFAULT in arguments.only:
        figures = {task: mean(found[DEFAULT, task]) for task in TASKS}
        for task in TASKS:
            print(f"{DEFAULT} {task}: n=5 {others[task, FEW]:.4f}, n=20 {others[task, MANY]:.4f}")
        figures["n5_loss"] = float(np.mean([figures[task] - others[task, FEW] for task in TASKS]))
        covered = [100 * mean(found[DEFAULT, task], "coverage") for task in TASKS]
        figures["coverage"] = figures["coverage_most"] = float(np.mean(covered))
    if {"help", "scratch"} <= set(arguments.only):
        tables = TASKS[:3]
        figures["help_nb201"] = float(np.mean([mean(found["help", task]) for task in tables]))
        scratch = float(np.mean([mean(found["scratch", task]) for task in tables]))
        figures["help_over_scratch"] = figures["help_nb201"] - scratch
    figures |= times(arguments.data)
    show_figures(figures, {n: TARGETS[n] for n in figures}, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
