"""Accuracy of subnets that were never evaluated: conditioned on the form of quantisation or not,
transferred from float32 or not, and beside the default predictor for the few samples of a job.

One small supernet of digits is trained, elastic in architecture, bits (2 to 8 for weights and
activations, float32) and form (granularity, symmetry of weights and of activations). Random
configs are evaluated after BatchNorm recalibration on the selection split. Every score is Kendall's
tau on held-out configs, mean over five seeds that draw the samples anew:

- CQAP with 300 samples of mixed forms and bits, against the same network without the form;
- the predictor transferred from float32 architectures with 100 quantised samples, against the same
  network without float32 ones with 200; bits are 4, 6 and 8 as in APQ;
- all predictors with the 10 to 60 verified evaluations of a job.

    python benchmarks/accuracy_prediction.py [--cache DIR] [--json FILE]

The supernet and every evaluation are kept in `--cache`: a run that was stopped goes on there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from _figures import show_figures

from predictors import (
    ACCURACY_PREDICTORS,
    CqapAccuracyPredictor,
    Predictor,
    TransferAccuracyPredictor,
    scores,
)
from predictors.accuracy.encoding import Part
from predictors.accuracy.network_predictor import NetworkAccuracyPredictor
from spaces import SearchSpace
from spaces.families import MobileNetV3, MobileNetV3Settings
from spaces.files import atomic_write_text
from spaces.population import sample
from supernet import DataConfig, Supernet, SupernetConfig, evaluate, load_data, train_supernet

FORMS = {
    "granularity": ("per_tensor", "per_channel"),
    "weight_symmetry": ("symmetric", "asymmetric"),
    "activation_symmetry": ("symmetric", "asymmetric"),
}
BITS = (2, 3, 4, 5, 6, 7, 8)
APQ_BITS = (4, 6, 8)
STAGE = {"depth": (1, 2, 3), "expansion": (2, 3, 4), "kernel": (3, 5), "squeeze_excite": (0,)}
SETTINGS = {
    "input_channels": 1,
    "classes": 10,
    "resolution": (12, 16),
    "stem": (8, 16),
    "stages": (
        {**STAGE, "width": (8, 16), "activation": "relu"},
        {**STAGE, "width": (16, 24), "stride": 2},
    ),
    "head": (32, 64),
    "w_bits": (*BITS, 32),
    "a_bits": BITS,
    **FORMS,
}
DATA = DataConfig(selection_share=0.4, report_share=0.1)
TRAINING = SupernetConfig(warmup_epochs=6, epochs=24)
SEEDS = range(5)
SAMPLES, FEW, TRANSFERRED, SCRATCH = 300, (10, 20, 40, 60), 100, 200
HELD_OUT = 200
# Configs evaluated: of mixed bits and forms, in APQ's bits, and architectures in float32.
MIXED, APQ, FLOAT32 = SAMPLES + HELD_OUT, SCRATCH + HELD_OUT, 300
METRICS = ("accuracy", "exp(-loss)")
TARGETS = {
    "cqap_tau": [">=", 0.6],
    "cqap_tau_gain": [">=", 0.0],
    "transfer_tau_gain": [">=", 0.0],
}

Network = TypeVar("Network", bound=NetworkAccuracyPredictor)


class Unconditioned(CqapAccuracyPredictor):
    """CQAP that does not see the form."""

    parts = (Part.BITS, Part.ARCHITECTURE)


class Table:
    """Evaluations of random configs of a space, kept in a file.

    Args:
        supernet: Of the space.
        file: Where evaluations are kept.
    """

    def __init__(self, supernet: Supernet, file: Path) -> None:
        self.supernet, self.file = supernet, file
        self.data = load_data(DATA)
        self.known: dict[str, list[float]] = json.loads(file.read_text()) if file.is_file() else {}

    def values(self, name: str, space: SearchSpace, count: int, seed: int) -> Any:
        """Random configs (n, d) of the supernet's space, drawn from a part of it, and their
        accuracies and exp(-loss) (n, 2)."""
        drawn = sample(space, count, np.random.default_rng(seed))
        configs = [self.supernet.space.config(space.from_indices(row)) for row in drawn]
        begun, todo = time.perf_counter(), [c for c in configs if c.key not in self.known]
        for number, config in enumerate(todo, start=1):
            found = evaluate(self.supernet, config, self.data)
            self.known[config.key] = [found.accuracy, float(np.exp(-found.loss))]
            if number % 25 == 0 or number == len(todo):
                atomic_write_text(self.file, json.dumps(self.known))
                left = (time.perf_counter() - begun) / number * (len(todo) - number)
                print(f"  {name}: {number} of {len(todo)}, {left:.0f} s left", flush=True)
        values = np.array([self.known[config.key] for config in configs])
        return np.stack([config.indices for config in configs]), values


def tau(predictor: Predictor, samples: Any, test: Any) -> Mapping[str, float]:
    """Scores of a predictor that learns from samples."""
    return scores(test[1], *predictor.fit(*samples).predict(test[0]))


def divided(table: Any, metric: int, count: int, seed: int) -> tuple[Any, Any]:
    """Samples, and the held-out configs, which are the last of a seed's order."""
    order = np.random.default_rng(seed).permutation(len(table[0]))
    return tuple(
        (table[0][rows], table[1][rows, metric]) for rows in (order[:count], order[-HELD_OUT:])
    )  # type: ignore[return-value]


def mean_over_seeds(score: Callable[[int], Mapping[str, float]]) -> dict[str, float]:
    """Mean of every score, and the standard deviation of tau."""
    found = [score(seed) for seed in SEEDS]
    means = {name: float(np.mean([each[name] for each in found])) for name in found[0]}
    return means | {"sd": float(np.std([each["kendall"] for each in found], ddof=1))}


def line(name: str, count: int, found: Mapping[str, float]) -> None:
    """Print one row of a table."""
    print(
        f"{name:<24} {count:>7} {found['kendall']:>8.3f} {found['sd']:>6.3f} "
        f"{found['spearman']:>9.3f} {100 * found['coverage90']:>8.1f}",
        flush=True,
    )


def seeded(kind: type[Network], space: SearchSpace, seed: int) -> Network:
    """A predictor by its own settings, with a seed."""
    return kind(space, replace(kind.defaults, seed=seed))


def conditioned(space: SearchSpace, mixed: Any, metric: int) -> dict[str, float]:
    """tau of CQAP with and without the form."""
    found = {}
    for kind in (CqapAccuracyPredictor, Unconditioned):
        name = "cqap" if kind is CqapAccuracyPredictor else "cqap without the form"
        found[name] = mean_over_seeds(
            lambda seed, kind=kind: tau(
                seeded(kind, space, seed), *divided(mixed, metric, SAMPLES, seed)
            )
        )
        line(name, SAMPLES, found[name])
    own, blind = (each["kendall"] for each in found.values())
    return {"cqap_tau": own, "cqap_tau_gain": own - blind}


def transferred(space: SearchSpace, float32: Any, apq: Any, metric: int) -> dict[str, float]:
    """tau of a transferred predictor over that of one from scratch with more samples."""
    taught = {
        seed: seeded(TransferAccuracyPredictor, space, seed).fit_fp32(
            float32[0], float32[1][:, metric]
        )
        for seed in SEEDS
    }
    found = {}
    for name, count in (("transfer", TRANSFERRED), ("scratch", TRANSFERRED), ("scratch", SCRATCH)):

        def score(seed: int, name: str = name, count: int = count) -> Mapping[str, float]:
            alone = seeded(TransferAccuracyPredictor, space, seed)
            return tau(
                taught[seed] if name == "transfer" else alone, *divided(apq, metric, count, seed)
            )

        found[name, count] = mean_over_seeds(score)
        line(f"{name}, bits 4, 6, 8", count, found[name, count])
    gain = found["transfer", TRANSFERRED]["kendall"] - found["scratch", SCRATCH]["kendall"]
    return {"transfer_tau_gain": gain}


def few(space: SearchSpace, mixed: Any, metric: int) -> None:
    """Print what a job's samples are worth to each predictor."""
    for count in (*FEW, SAMPLES):
        for name in ACCURACY_PREDICTORS.names():
            line(
                name,
                count,
                mean_over_seeds(
                    lambda seed, name=name, count=count: tau(
                        ACCURACY_PREDICTORS.get(name)(space),
                        *divided(mixed, metric, count, seed),
                    )
                ),
            )


def main() -> int:
    """Train, evaluate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path("accuracy-prediction"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    space = SearchSpace("digits_forms", MobileNetV3(MobileNetV3Settings.model_validate(SETTINGS)))
    data = DATA.model_dump(mode="json")
    folder = arguments.cache / TRAINING.key(space.key, data)
    last = {"at": 0.0}

    def progress(phase: str, done: int, total: int) -> None:
        if done == total or time.monotonic() - last["at"] > 20:
            last["at"] = time.monotonic()
            print(f"  {phase}: {done} of {total} steps", flush=True)

    supernet = train_supernet(space, TRAINING, load_data(DATA), folder / "supernet", progress)
    table = Table(supernet, folder / "evaluations.json")
    parts = {
        name: space.restrict(choices={"*.w_bits": w_bits, "*.a_bits": a_bits})
        for name, w_bits, a_bits in (
            ("mixed", BITS, BITS),
            ("APQ's bits", APQ_BITS, APQ_BITS),
            ("float32", (32,), BITS[-1:]),
        )
    }
    counts = {"mixed": MIXED, "APQ's bits": APQ, "float32": FLOAT32}
    mixed, apq, float32 = (
        table.values(name, part, counts[name], seed)
        for seed, (name, part) in enumerate(parts.items())
    )
    for name, part in (("mixed", mixed), ("APQ's bits", apq), ("float32", float32)):
        low, middle, high = 100 * np.quantile(part[1][:, 0], (0.1, 0.5, 0.9))
        print(f"{name}: accuracy {low:.1f} {middle:.1f} {high:.1f} % (10, 50, 90 %)")
    figures: dict[str, float] = {}
    for metric, name in enumerate(METRICS):
        print(
            f"\n{name:<24} {'samples':>7} {'Kendall':>8} {'sd':>6} {'Spearman':>9} {'in 90 %':>8}"
        )
        found = conditioned(space, mixed, metric) | transferred(space, float32, apq, metric)
        figures |= found if metric == 0 else {f"{key}_loss": v for key, v in found.items()}
        few(space, mixed, metric)
    show_figures(figures, TARGETS, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
