"""Which setting the default latency predictor has: nested leave-one-family-out.

Of every task of `latency_few_shot.py` only the training devices are used. Each family among them is
left out in turn, predicted from the others with 10 and with 20 samples, and scored like the tasks
(rank correlation over the middle 80 % of the test configs). A task chooses the setting with the
best mean over its own left-out families: that is the nested choice, and what it gets on the task's
unseen family is printed beside what the default gets there. The one setting for devices that nobody
has seen is chosen by the mean over the inner families of all tasks; the default must be that one,
or the exit status is 1.

    python benchmarks/latency_setting.py [--data DIR] [--seeds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

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


def main() -> int:
    """Choose, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not (arguments.data / "ofa").is_dir():
        print(f"no tables in {arguments.data}; name their folder with --data", file=sys.stderr)
        return 2
    inner: dict[str, dict[str, float]] = {name: {} for name in SETTINGS}
    print(f"{'mean of left-out families':<26}" + "".join(f"{task:>9}" for task in TASKS))
    problems = {}
    for task in TASKS:
        outer = [load(task, seed, arguments.data) for seed in range(arguments.seeds)]
        # Family by family, so that each problem of a list is another seed.
        by_family = list(zip(*map(inner_problems, outer), strict=True))
        problems[task] = outer, by_family
    for name, setting in SETTINGS.items():
        for task, (_, by_family) in problems.items():
            each = [score(setting, family) for family in by_family]
            inner[name][task] = float(np.mean(each))
        cells = "".join(f"{inner[name][task]:>9.4f}" for task in TASKS)
        print(f"{name:<26}{cells}", flush=True)
    print("\ntask    chosen inside       on its unseen family   the default there")
    figures = {}
    for task, (outer, _) in problems.items():
        chosen = max(SETTINGS, key=lambda name, task=task: inner[name][task])
        nested, default = (score(SETTINGS[name], outer) for name in (chosen, DEFAULT))
        figures[f"{task}_nested"], figures[f"{task}_default"] = nested, default
        print(f"{task:<7} {chosen:<20} {nested:>19.4f} {default:>19.4f}", flush=True)
    best = max(SETTINGS, key=lambda name: float(np.mean(list(inner[name].values()))))
    print(f"\nchosen over all inner families: {best}")
    show_figures(figures, {}, arguments.json)
    return 0 if best == DEFAULT else 1


if __name__ == "__main__":
    sys.exit(main())
