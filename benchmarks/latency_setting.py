"""Which setting the default latency predictor has: nested leave-one-family-out.

Of every task of `latency_few_shot.py` only the training devices are used. Each family among them is
left out in turn, predicted from the others with 10 and with 20 samples, and scored like the tasks
(rank correlation over the middle 80 % of the test configs). A task chooses the setting with the
best mean over its own left-out families: that is the nested choice, and what it gets on the task's
unseen family is printed beside what the default gets there. The one setting for devices that nobody
has seen is chosen by the mean over the inner families of all tasks: another than the default only
where it is better by more than one standard error of the difference, over families (Breiman et al.
1984). The default must be the chosen one, or the exit status is 1.

    python benchmarks/latency_setting.py [--data DIR] [--seeds N] [--only NAME ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _figures import show_figures
from latency_few_shot import COUNT, DATA, FAMILIES, MANY, TASKS, Problem, load, mean, measure

from predictors import ConfigSchema
from predictors.latency import AdaptiveLatencyPredictor, AdaptiveSetting

DEFAULT = "default"
SETTINGS: Mapping[str, AdaptiveSetting] = {
    DEFAULT: AdaptiveSetting(),
    **{
        name: AdaptiveSetting(design={**AdaptiveSetting().design, **weights})
        for name, weights in {
            "devices .3": {"devices": 0.3},
            "counts .3": {"counts": 0.3},
            "counts 3": {"counts": 3.0},
            "counts 10": {"counts": 10.0},
            "devices .1, counts 3": {"devices": 0.1, "counts": 3.0},
            "amounts 0": {"amounts": 0.0},
            "choices .1": {"choices": 0.1},
            "macs .3": {"macs": 0.3},
        }.items()
    },
    "noise .03": AdaptiveSetting(design_noise=0.03),
    "noise .3": AdaptiveSetting(design_noise=0.3),
    "factors 2": AdaptiveSetting(factors=2),
    "factors 4": AdaptiveSetting(factors=4),
}
COUNTS = (COUNT, MANY)


class Difference(NamedTuple):
    """A mean difference and its standard error."""

    mean: float
    error: float


def family_of(device: str) -> str:
    """The family of a training device: the kind of processor, or the GPU whatever its batch."""
    for family, members in FAMILIES.items():
        if device in members:
            return family
    return device.rpartition("_")[0]


def inner_problems(problem: Problem) -> list[Problem]:
    """Each family of the training devices left out; the test configs are the task's."""
    found = []
    for family in sorted({family_of(device) for device in problem.tables.devices}):
        left = [device for device in problem.tables.devices if family_of(device) == family]
        found.append(
            Problem(
                problem.tables.without(left),
                problem.test,
                {device: problem.tables.latencies[device] for device in left},
                {device: problem.trained_test_ms[device] for device in left},
                {},
                problem.rest,
                {},
            )
        )
    return found


def score(setting: AdaptiveSetting, problems: Sequence[Problem]) -> float:
    """Mean score over devices, seeds and numbers of samples."""

    def make(schema: ConfigSchema) -> AdaptiveLatencyPredictor:
        return AdaptiveLatencyPredictor(schema, setting)

    found = measure(make, problems, COUNTS)
    return float(np.mean([mean(found[count]) for count in COUNTS]))


def difference(found: Sequence[Sequence[float]], default: Sequence[Sequence[float]]) -> Difference:
    """Between two settings: scores of each task's inner families; every task counts the same."""
    pairs = [np.subtract(a, b) for a, b in zip(found, default, strict=True)]
    variance = sum(each.var(ddof=1) / len(each) for each in pairs) / len(pairs) ** 2
    return Difference(float(np.mean([each.mean() for each in pairs])), float(np.sqrt(variance)))


def main() -> int:
    """Choose, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--only", nargs="+", choices=SETTINGS, metavar="NAME", default=SETTINGS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not (arguments.data / "ofa").is_dir():
        print(f"no tables in {arguments.data}; name their folder with --data", file=sys.stderr)
        return 2
    compared = dict.fromkeys((DEFAULT, *arguments.only))
    inner: dict[str, dict[str, list[float]]] = {name: {} for name in compared}
    columns = (*TASKS, "mean", "to default", "error")
    print(f"{'mean of left-out families':<26}" + "".join(f"{name:>11}" for name in columns))
    problems = {}
    for task in TASKS:
        outer = [load(task, seed, arguments.data) for seed in range(arguments.seeds)]
        # Family by family, so that each problem of a list is another seed.
        by_family = list(zip(*map(inner_problems, outer), strict=True))
        problems[task] = outer, by_family
    against = {}
    for name in compared:
        for task, (_, by_family) in problems.items():
            inner[name][task] = [score(SETTINGS[name], family) for family in by_family]
        scored = list(inner[name].values())
        against[name] = difference(scored, list(inner[DEFAULT].values()))
        means = [float(np.mean(each)) for each in scored]
        cells = [*means, float(np.mean(means)), *against[name]]
        print(f"{name:<26}" + "".join(f"{value:>11.4f}" for value in cells), flush=True)
    print("\ntask    chosen inside       on its unseen family   the default there")
    figures = {}
    for task, (outer, _) in problems.items():
        chosen = max(compared, key=lambda name, task=task: float(np.mean(inner[name][task])))
        nested, default = (score(SETTINGS[name], outer) for name in (chosen, DEFAULT))
        figures[f"{task}_nested"], figures[f"{task}_default"] = nested, default
        print(f"{task:<7} {chosen:<20} {nested:>19.4f} {default:>19.4f}", flush=True)
    better = [name for name in compared if against[name].mean > against[name].error]
    best = max(better, key=lambda name: against[name].mean, default=DEFAULT)
    print(f"\nchosen over all inner families: {best}")
    show_figures(figures, {}, arguments.json)
    return 0 if best == DEFAULT else 1


if __name__ == "__main__":
    sys.exit(main())
