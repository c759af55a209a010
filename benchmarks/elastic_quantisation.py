"""One supernet of every bit-width beside networks trained for one, on scikit-learn's digits.

A residual network of fixed architecture, so narrow that bits matter on these images; bits 2, 3, 4,
8 of weights and activations together, per channel, symmetric weights and asymmetric activations.
For every split seed and the same number of epochs each:

- one network for each bit-width, trained for it alone;
- one network in float32, rounded after training (scales calibrated, BatchNorm recalibrated);
- supernets that serve all bit-widths (each layer's bits are chosen at random in training): `plain`
  (cross-entropy for every config), `kl` (in-place distillation from the most bits), `chain`
  (EQ-Net's high -> random -> low), `chain+wdr` (with kurtosis-and-skew regularisation), and
  `chain+wdr` on one shared power-of-two scale (Double Rounding).

Accuracy is that on the report split, which nothing was chosen on; mean and standard deviation over
the split seeds. The figures compare `chain+wdr` with what was trained for one bit-width.

    python benchmarks/elastic_quantisation.py [--seeds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from _figures import show_figures

from spaces import SearchSpace
from supernet import (
    DataConfig,
    DataSplits,
    Supernet,
    SupernetConfig,
    Trainer,
    build_supernet,
    evaluate,
    load_data,
)

BITS = (2, 3, 4, 8)
SEEDS = (411, 412, 413, 414, 415)
EPOCHS = {"warmup_epochs": 6, "epochs": 24}
BEST, PLAIN, ROUNDED = "chain+wdr", "plain", "rounded"
SUPERNETS: Mapping[str, dict[str, Any]] = {
    PLAIN: {"objective": "task"},
    "kl": {"objective": "distillation"},
    "chain": {"objective": "chain"},
    BEST: {"objective": "chain", "regularizer": "kurtosis_skew"},
    "chain+wdr, shared": {
        "objective": "chain",
        "regularizer": "kurtosis_skew",
        "quantizer": "shared_pow2",
    },
}
TARGETS = {
    "gap_3bit": ["<=", 1.0],
    "gap_4bit": ["<=", 1.0],
    "gap_8bit": ["<=", 1.0],
    "gain_2bit_over_rounding": [">=", 10.0],
    "worst_loss_to_plain": ["<=", 1.0],
}


def space_of(bits: tuple[int, ...]) -> SearchSpace:
    """The fixed network with these choices of bits."""
    settings = {
        "input_channels": 1,
        "classes": 10,
        "resolution": (16,),
        "block": "basic",
        "stem": (8,),
        "stages": (
            {"width": (8,), "depth": (1,), "expansion": (100,)},
            {"width": (16,), "depth": (1,), "expansion": (100,), "stride": 2},
            {"width": (32,), "depth": (1,), "expansion": (100,), "stride": 2},
        ),
        "w_bits": bits,
        "a_bits": [b for b in bits if b <= 8] or [8],
    }
    return SearchSpace.from_json(
        {"name": "resnet_fixed", "family": "resnet", "settings": settings, "choices": None}
    )


def train(space: SearchSpace, options: Mapping[str, Any], data: DataSplits) -> Supernet:
    """Train without a checkpoint."""
    config = SupernetConfig.model_validate({**EPOCHS, **options})
    trainer = Trainer(space, config, data)
    while trainer.step < trainer.total_steps:
        trainer.train_step()
    return trainer.supernet


def accuracy(supernet: Supernet, bits: int, data: DataSplits) -> float:
    """Percent on the report split with every layer in `bits`."""
    space = supernet.space
    values = dict(space.max_config())
    for dimension in space.dimensions:
        if dimension.name.endswith(("w_bits", "a_bits")):
            values[dimension.name] = bits
    return 100 * evaluate(supernet, space.config(values), data, "report").accuracy


def rounded(trained: Supernet, data: DataSplits) -> Supernet:
    """The float32 network with quantisers that were calibrated after the training."""
    space = space_of(BITS)
    supernet = build_supernet(space)
    supernet.load_state_dict(trained.state_dict(), strict=False)
    supernet.calibrate([(space.max_config(), _images(data, supernet.resolution))])
    return supernet


def _images(data: DataSplits, resolution: int) -> torch.Tensor:
    from supernet import resize

    return resize(data.train.images[:256], resolution)


def run(seed: int) -> dict[str, dict[int, float]]:
    """Method -> bits -> accuracy, of one split."""
    data = load_data(DataConfig(seed=seed))
    alone = {"seed": seed, "sampler": "uniform", "random_configs": 1, "objective": "task"}
    found: dict[str, dict[int, float]] = {"separate": {}}
    for bits in BITS:
        found["separate"][bits] = accuracy(train(space_of((bits,)), alone, data), bits, data)
    float_net = rounded(train(space_of((32,)), alone, data), data)
    found[ROUNDED] = {bits: accuracy(float_net, bits, data) for bits in BITS}
    for name, options in SUPERNETS.items():
        supernet = train(space_of(BITS), {"seed": seed, "random_configs": 1, **options}, data)
        found[name] = {bits: accuracy(supernet, bits, data) for bits in BITS}
    return found


def main() -> None:
    """Print a table; with --json write figures and targets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = []
    for seed in SEEDS[: options.seeds]:
        runs.append(run(seed))
        print(f"split seed {seed}", flush=True)
        for name, found in runs[-1].items():
            print(f"  {name:18}" + "".join(f"{found[b]:8.2f}" for b in BITS), flush=True)
    print("\naccuracy %, mean (sd)" + "".join(f"{b:>10d} bits" for b in BITS))
    mean: dict[str, dict[int, float]] = {}
    for name in runs[0]:
        values = {bits: [one[name][bits] for one in runs] for bits in BITS}
        mean[name] = {bits: statistics.mean(v) for bits, v in values.items()}
        spread = {b: statistics.stdev(v) if len(v) > 1 else 0.0 for b, v in values.items()}
        cells = "".join(f"{mean[name][b]:9.2f} ({spread[b]:.2f})" for b in BITS)
        print(f"{name:21}{cells}")
    best = mean[BEST]
    figures = {f"gap_{bits}bit": mean["separate"][bits] - best[bits] for bits in (3, 4, 8)}
    figures["gap_2bit"] = mean["separate"][2] - best[2]
    figures["gain_2bit_over_rounding"] = best[2] - mean[ROUNDED][2]
    figures["worst_loss_to_plain"] = max(mean[PLAIN][bits] - best[bits] for bits in BITS)
    show_figures(figures, TARGETS, options.json)


if __name__ == "__main__":
    main()
