"""Whether subnets of like complexity agree about the weights they share, and what comes of it.

Supernets of the digits space (float32, one resolution) are trained with uniform, complexity-aware,
and complexity- and performance-aware sampling (ElasticViT: Tang et al. 2023): equal steps, equally
many subnets a step, the plain task loss, five seeds.

- `share_higher`: at several checkpoints of every training the gradients of configs of every
  complexity level are computed on one fixed batch. The share of checkpoints at which their mean
  cosine over pairs at most one level apart is higher than over all pairs.
- The accuracy on the selection split of 20 random subnets, the same for all, at the end: mean and
  standard deviation over the seeds. No target: reported as found.

    python benchmarks/conflict.py [--seeds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _figures import show_figures
from numpy.typing import NDArray
from torch import Tensor

from spaces import Config, SearchSpace, cost, get_space
from spaces.population import sample
from supernet import (
    DataConfig,
    DataSplits,
    Supernet,
    SupernetConfig,
    Trainer,
    evaluate,
    load_data,
    resize,
)
from supernet.objectives import cross_entropy

SPACE, RESOLUTION = "mobilenetv3_digits", 20
SAMPLERS = ("uniform", "complexity", "performance")
SEEDS = 5
CHECKPOINTS = 4
LEVELS, PER_LEVEL, DRAWN = 6, 4, 4000
SUBNETS, FIXED_BATCH = 20, 256
TARGETS = {"share_higher": [">=", 1.0]}
_LEVEL_SEED, _SUBNET_SEED = 1, 2


def fixed_space() -> SearchSpace:
    """Architectures alone, so that complexity is multiply-accumulates."""
    choices = {"resolution": (RESOLUTION,), "*.w_bits": (32,)}
    return get_space(SPACE).restrict(choices=choices)


def training(sampler: str, seed: int) -> SupernetConfig:
    """The same budget for every sampler: four subnets a step."""
    # The complexity-aware samplers add the level's smallest subnet to the random ones.
    random_configs = 4 if sampler == "uniform" else 3
    return SupernetConfig.model_validate(
        {
            "seed": seed,
            "warmup_epochs": 3,
            "epochs": 16,
            "random_configs": random_configs,
            "sampler": sampler,
            "objective": "task",
        }
    )


def macs(config: Config) -> int:
    """Multiply-accumulates of one inference."""
    return cost(config.space.layer_specs(config)).macs


def configs_by_level(space: SearchSpace) -> list[list[Config]]:
    """A few configs near the middle of each of some levels, equally far apart in log MACs."""
    rows = sample(space, DRAWN, np.random.default_rng(_LEVEL_SEED))
    drawn = [space.from_indices(row) for row in rows]
    logs = np.log([macs(config) for config in drawn])
    centres = np.linspace(*np.quantile(logs, [0.01, 0.99]), LEVELS)
    return [[drawn[i] for i in np.argsort(np.abs(logs - centre))[:PER_LEVEL]] for centre in centres]


def gradient(supernet: Supernet, config: Config, images: Tensor, labels: Tensor) -> Tensor:
    """The gradient of all shared weights, one row; zero where the config does not use them."""
    weights = supernet.weight_parameters()
    supernet.activate(config)
    loss = cross_entropy(supernet(resize(images, supernet.resolution)), labels)
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    parts = [
        torch.zeros(weight.numel()) if part is None else part.flatten()
        for weight, part in zip(weights, found, strict=True)
    ]
    return torch.cat(parts)


def cosines(
    supernet: Supernet, levels: Sequence[Sequence[Config]], images: Tensor, labels: Tensor
) -> tuple[float, float]:
    """Mean cosine over pairs at most one level apart, and over all pairs."""
    supernet.train()
    rows = torch.stack(
        [gradient(supernet, config, images, labels) for level in levels for config in level]
    )
    rows /= rows.norm(dim=1, keepdim=True)
    cosine = (rows @ rows.T).numpy()
    level = np.repeat(np.arange(len(levels)), [len(members) for members in levels])
    pairs: NDArray[np.bool_] = np.triu(np.ones_like(cosine, dtype=np.bool_), 1)
    near = pairs & (np.abs(level[:, None] - level[None]) <= 1)
    return float(cosine[near].mean()), float(cosine[pairs].mean())


def train(sampler: str, seed: int, data: DataSplits) -> tuple[list[tuple[float, float]], list[Any]]:
    """Cosines at every checkpoint, and the final accuracies of the fixed random subnets."""
    space = fixed_space()
    trainer = Trainer(space, training(sampler, seed), data)
    levels = configs_by_level(space)
    images, labels = data.train.images[:FIXED_BATCH], data.train.labels[:FIXED_BATCH]
    first = trainer.warmup_steps
    measured = np.linspace(first, trainer.total_steps, CHECKPOINTS + 1).astype(int)[1:]
    found = []
    while trainer.step < trainer.total_steps:
        trainer.train_step()
        if trainer.step in measured:
            found.append(cosines(trainer.supernet, levels, images, labels))
    rows = sample(space, SUBNETS, np.random.default_rng(_SUBNET_SEED))
    subnets = [space.from_indices(row) for row in rows]
    return found, [evaluate(trainer.supernet, config, data).accuracy for config in subnets]


def main() -> None:
    """Print a table; with --json write figures and targets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    higher: list[bool] = []
    means: dict[str, list[float]] = {sampler: [] for sampler in SAMPLERS}
    print("seed  sampler      cosine <= 1 level / all, at each checkpoint     accuracy % (worst)")
    for seed in range(options.seeds):
        data = load_data(DataConfig(seed=seed))
        for sampler in SAMPLERS:
            found, accuracies = train(sampler, seed, data)
            higher += [near > every for near, every in found]
            means[sampler].append(100 * statistics.mean(accuracies))
            pairs = "  ".join(f"{near:.2f}/{every:.2f}" for near, every in found)
            worst = 100 * min(accuracies)
            print(
                f"{seed:4d}  {sampler:11}  {pairs:45}  {means[sampler][-1]:.2f} ({worst:.2f})",
                flush=True,
            )
    print("\nsampler      accuracy % of 20 random subnets, mean and sd over seeds")
    for sampler, values in means.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{sampler:11}  {statistics.mean(values):.2f} {spread:.2f}")
    figures = {"share_higher": float(np.mean(higher))}
    figures |= {f"{name}_accuracy": statistics.mean(values) for name, values in means.items()}
    show_figures(figures, TARGETS, options.json)


if __name__ == "__main__":
    main()
