"""What weight sharing costs: a sandwich step beside plain PyTorch steps of the same subnets.

- `fp32_overhead`: a sandwich step of `mobilenetv3_digits` in float32 (largest, two random,
  smallest, always the same configs) over the sum of four training steps of these subnets as plain
  PyTorch networks of their own (convolution, BatchNorm, AdamW).
- `fakequant_overhead`: the same with every layer that can be quantised in W8A8, over the same
  float32 plain steps.
- `ofa_space_ratio`: in a once-for-all space (MobileNetV3 of half width, kernels 3 and 5, expansions
  2 to 4, depths 1 and 2) a sandwich step over a step of the largest subnet alone, as a plain
  network.

The step is the trainer's, with the memory settings of its training for all.

One thread, batch 64, one process; the steps of a space take turns, and medians are compared. A/A
compares two halves of the plain steps. Peak memory is that of a process of its own which makes
sandwich steps, and of one that makes steps of the largest subnet.

    python benchmarks/supernet_throughput.py [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from _figures import show_figures
from _plain_nets import plain_net
from torch import Tensor

from spaces import Config, SearchSpace, get_space
from spaces.population import sample
from supernet import Supernet, SupernetConfig, build_supernet
from supernet.allocator import kept_memory
from supernet.descent import Descent
from supernet.distributed import SingleWorld
from supernet.objectives import cross_entropy
from supernet.samplers import Draw, Role
from supernet.schedule import Rates

BATCH = 64
CLASSES = 10
SEED = 5
LEARNING_RATE = 1e-4
RANDOM_CONFIGS = 2
OFA_SPACE = "ofa_half_width"
TARGETS = {
    "fp32_overhead": ["<=", 1.10],
    "fakequant_overhead": ["<=", 1.5],
    "ofa_space_ratio": ["<=", 1.8],
}
_CALIBRATION_IMAGES = 256
_MEMORY_STEPS = 6

Step = Callable[[], None]


def ofa_space() -> SearchSpace:
    """MobileNetV3 of half width as once-for-all has it, its fixed first block included, without its
    widest kernel and depths."""
    first = {
        "width": (8,),
        "depth": (1,),
        "expansion": (1,),
        "kernel": (3,),
        "squeeze_excite": (0,),
        "stride": 1,
        "activation": "relu",
    }

    def stage(width: int, stride: int, squeeze: int, activation: str) -> dict[str, Any]:
        return {
            "width": (width,),
            "depth": (1, 2),
            "expansion": (2, 3, 4),
            "kernel": (3, 5),
            "squeeze_excite": (squeeze,),
            "stride": stride,
            "activation": activation,
        }

    settings = {
        "input_channels": 3,
        "classes": CLASSES,
        "resolution": (32,),
        "stem": (8,),
        "stages": (
            first,
            stage(16, 2, 0, "relu"),
            stage(24, 2, 1, "relu"),
            stage(40, 2, 0, "hardswish"),
            stage(56, 1, 1, "hardswish"),
            stage(80, 2, 1, "hardswish"),
        ),
        "head": (480,),
    }
    return SearchSpace.from_json(
        {"name": OFA_SPACE, "family": "mobilenetv3", "settings": settings, "choices": None}
    )


def digits_space(bits: int) -> SearchSpace:
    """`mobilenetv3_digits` at its largest resolution, every weight in `bits`."""
    space = get_space("mobilenetv3_digits")
    largest = space.max_config()["resolution"]
    return space.restrict(choices={"resolution": (largest,), "*.w_bits": (bits,)})


SPACES: dict[str, Callable[[], SearchSpace]] = {
    "float32": lambda: digits_space(32),
    "W8A8": lambda: digits_space(8),
    OFA_SPACE: ofa_space,
}


def fixed_configs(space: SearchSpace) -> list[Config]:
    """The largest, random ones, the smallest."""
    rows = sample(space, RANDOM_CONFIGS, np.random.default_rng(SEED))
    return [space.max_config(), *map(space.from_indices, rows), space.min_config()]


def batch_for(space: SearchSpace) -> tuple[Tensor, Tensor]:
    """Images of noise and labels: what they show does not change the time."""
    generator = torch.Generator().manual_seed(SEED)
    size = int(space.max_config()["resolution"])
    shape = (BATCH, space.family.input_channels, size, size)
    images = torch.rand(shape, generator=generator)
    return images, torch.randint(CLASSES, (BATCH,), generator=generator)


def sandwich_step(supernet: Supernet, configs: Sequence[Config]) -> Step:
    """The trainer's own step on these configs, the first one teaching the others."""
    images, labels = batch_for(supernet.space)
    config = SupernetConfig(batch_size=BATCH, random_configs=RANDOM_CONFIGS)
    descent = Descent(supernet, config, SingleWorld())
    roles = [Role.MAX, *[Role.RANDOM] * RANDOM_CONFIGS, Role.MIN]
    draws = [Draw(config, role) for config, role in zip(configs, roles, strict=True)]
    rates = Rates(LEARNING_RATE, LEARNING_RATE)

    def step() -> None:
        descent.step(draws, images, labels, rates, progress=0.5)

    return step


def plain_step(space: SearchSpace, config: Config) -> Step:
    """A training step of one subnet as a plain network."""
    torch.manual_seed(SEED)
    net = plain_net(space.layer_specs(config))
    images, labels = batch_for(space)
    # As the trainer has it.
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(cross_entropy(net(images), labels))
        optimizer.step()

    return step


def trained_supernet(space: SearchSpace) -> Supernet:
    """A supernet with random weights and calibrated quantisers, in training mode."""
    torch.manual_seed(SEED)
    supernet = build_supernet(space)
    images, _ = batch_for(space)
    supernet.calibrate([(config, images) for config in fixed_configs(space)])
    return supernet.train()


def interleaved(steps: Sequence[Step], rounds: int) -> list[list[float]]:
    """Milliseconds of every step, [steps, rounds]; the order is reversed every round."""
    for step in steps:
        step()
    taken: list[list[float]] = [[] for _ in steps]
    order = list(range(len(steps)))
    for _ in range(rounds):
        for index in order:
            start = time.perf_counter()
            steps[index]()
            taken[index].append(1e3 * (time.perf_counter() - start))
        order.reverse()
    return taken


def measure(name: str, rounds: int) -> tuple[float, list[float], float]:
    """Milliseconds of the sandwich step, of each plain step, and the A/A ratio of the plain sum."""
    space = SPACES[name]()
    configs = fixed_configs(space)
    steps = [sandwich_step(trained_supernet(space), configs)]
    steps += [plain_step(space, config) for config in configs]
    sandwich, *plain = interleaved(steps, rounds)
    halves = [sum(median(taken[part::2]) for taken in plain) for part in (0, 1)]
    return median(sandwich), [median(taken) for taken in plain], max(halves) / min(halves)


def peak_memory(name: str, what: str) -> float:
    """Peak MB of a process that makes a few steps, above what it had before them."""
    command = [sys.executable, "-W", "ignore", __file__, "--memory-of", name, what]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(json.loads(found.stdout.splitlines()[-1]))


def _print_memory(name: str, what: str) -> None:
    torch.set_num_threads(1)
    space = SPACES[name]()
    if what == "sandwich":
        step = sandwich_step(trained_supernet(space), fixed_configs(space))
    else:
        step = plain_step(space, space.max_config())
    before = _memory("VmRSS")
    # The peak of the process so far, of which a part is the parent's, is forgotten.
    Path("/proc/self/clear_refs").write_text("5")
    with kept_memory():
        for _ in range(_MEMORY_STEPS):
            step()
    print(json.dumps((_memory("VmHWM") - before) / 1024))


def _memory(field: str) -> int:
    """A figure of this process in kB: `VmRSS`, what it has now; `VmHWM`, the most it had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1])


def main() -> None:
    """Print a table; with --json write figures and targets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--memory-of", nargs=2, metavar=("SPACE", "STEP"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        _print_memory(*options.memory_of)
        return
    torch.set_num_threads(1)
    from search.host_lock import HostLock

    found = {}
    print("space           sandwich ms  max ms  random ms     min ms  sum ms  A/A    MB  max's MB")
    with HostLock().exclusive("a benchmark"), kept_memory():
        for name in SPACES:
            sandwich, plain, aa = found[name] = measure(name, options.rounds)
            memory = [peak_memory(name, what) for what in ("sandwich", "max")]
            print(
                f"{name:15} {sandwich:11.1f} {plain[0]:7.1f} {plain[1]:6.1f} {plain[2]:6.1f} "
                f"{plain[3]:7.1f} {sum(plain):7.1f} {aa:5.3f} {memory[0]:5.0f} {memory[1]:9.0f}",
                flush=True,
            )
    figures = {
        "fp32_overhead": found["float32"][0] / sum(found["float32"][1]),
        # The plain networks stay in float32: these are the same subnets.
        "fakequant_overhead": found["W8A8"][0] / sum(found["W8A8"][1]),
        "ofa_space_ratio": found[OFA_SPACE][0] / found[OFA_SPACE][1][0],
    }
    show_figures(figures, TARGETS, options.json)


if __name__ == "__main__":
    main()
