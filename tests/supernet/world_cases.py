"""What the tests of `supernet.distributed` compute, alone and as one of several processes.

As a script: `world_cases.py RANK SIZE FOLDER` is one process of a gloo group; it writes what each
case gave it into the folder. Every case depends on the global batch only, so that its results do
not depend on the number of processes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from tiny_vit import tiny_vit_space
from torch import Tensor

from spaces.families import MobileNetV3, MobileNetV3Settings
from spaces.space import SearchSpace
from supernet import (
    DataSplits,
    ImageSet,
    SupernetConfig,
    TorchWorld,
    Trainer,
    TrainingStoppedError,
    World,
    train_supernet,
)
from supernet.elastic import ElasticBatchNorm2d
from supernet.recalibration import recalibrate
from supernet.updates import AccumulateConfig

STEPS = 20
BATCH = 33  # two workers have 17 and 16 of them
SPACE = SearchSpace(
    "tiny",
    MobileNetV3(
        MobileNetV3Settings.model_validate(
            {
                "input_channels": 1,
                "classes": 10,
                "resolution": (8, 12),
                "stem": (8, 16),
                "stages": (
                    {
                        "width": (8, 16),
                        "depth": (1, 2),
                        "expansion": (2, 4),
                        "kernel": (3, 5),
                        "activation": "relu",
                    },
                    {"width": (16, 32), "depth": (1, 2), "expansion": (2,), "kernel": (3,)},
                ),
                "head": (24, 48),
                "schemes": ("fp32",),
            }
        )
    ),
)
CONFIG = SupernetConfig(
    warmup_epochs=1,
    epochs=1,
    batch_size=BATCH,
    random_configs=1,
    checkpoint_every=3,
)
SGD = CONFIG.model_copy(
    update={"epochs": 4, "update": AccumulateConfig(optimizer="sgd"), "learning_rate": 0.001}
)
STOPPED_AFTER = 4  # between two checkpoints


def images(count: int) -> ImageSet:
    chance = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (count,), generator=chance)
    # Something to learn: each label has its own pattern.
    patterns = torch.rand(10, 1, 8, 8, generator=chance)
    noise = torch.rand(count, 1, 8, 8, generator=chance)
    return ImageSet(0.5 * patterns[labels] + 0.5 * noise, labels)


DATA = DataSplits(images(5 * BATCH), images(20), images(20), 10)


def norm_input() -> tuple[Tensor, Tensor]:
    """A batch of 7 and its gradient; the mean of the last channel is 1000 times its deviation."""
    chance = torch.Generator().manual_seed(1)
    x = torch.randn(7, 4, 5, 5, generator=chance)
    scale, mean = torch.tensor([1.0, 3.0, 0.2, 1.0]), torch.tensor([0.0, 2.0, -0.5, 1000.0])
    x = x * scale[:, None, None] + mean[:, None, None]
    return x, torch.randn(7, 4, 5, 5, generator=chance)


def norm_parameters() -> tuple[Tensor, Tensor]:
    return torch.tensor([1.0, -0.5, 2.0, 0.3]), torch.tensor([0.0, 1.0, -1.0, 0.2])


def batch_norm(world: World, folder: Path) -> dict[str, Tensor]:
    """Forward, gradients and recalibrated statistics of two batches."""
    del folder
    x, gradient = norm_input()
    norm = ElasticBatchNorm2d(6)
    norm.activate(4)
    norm.world = world
    with torch.no_grad():
        norm.weight[:4], norm.bias[:4] = norm_parameters()
    part = x[world.rows].clone().requires_grad_()
    out = norm(part)
    out.backward(gradient[world.rows])
    assert norm.weight.grad is not None
    assert norm.bias.grad is not None
    assert part.grad is not None
    norm.start_recalibration()
    for batch in (x, 2 * x + 1):
        norm(batch[world.rows])
    return {
        "out": out.detach(),
        "grad_x": part.grad,
        "grad_weight": world.sum(norm.weight.grad),
        "grad_bias": world.sum(norm.bias.grad),
        "mean": norm.running_mean,
        "var": norm.running_var,
    }


def sum_gradient(world: World, folder: Path) -> dict[str, Tensor]:
    """The gradient through a sum of all workers' values, the loss being the sum of theirs."""
    del folder
    x = torch.arange(1.0, 8.0)[world.rows].clone().requires_grad_()
    total = world.sum(x.square().sum())
    (total.square() / world.size).backward()
    assert x.grad is not None
    return {"total": total.detach(), "grad": x.grad}


def sandwich(world: World, folder: Path) -> dict[str, Tensor]:
    """A CNN supernet after SGD steps of the sandwich; see `_sandwich`."""
    del folder
    return _sandwich(SPACE, world)


def sandwich_vit(world: World, folder: Path) -> dict[str, Tensor]:
    """The same with the ElasticViT family."""
    del folder
    return _sandwich(vit_space("batch"), world)


def sandwich_layer_norm(world: World, folder: Path) -> dict[str, Tensor]:
    """The same with LayerNorm in its transformer blocks."""
    del folder
    return _sandwich(vit_space("layer"), world)


def vit_space(norm: str) -> SearchSpace:
    """Without rounding, of one resolution."""
    return tiny_vit_space(norm, schemes=("fp32",)).restrict(choices={"resolution": [16]})


def _sandwich(space: SearchSpace, world: World) -> dict[str, Tensor]:
    """The trained weights, BatchNorm recalibrated; the configs that were trained, as bytes; the
    losses."""
    trainer = Trainer(space, SGD, DATA, world)
    trainer.start_sandwich()
    trainer.step = trainer.warmup_steps
    keys: list[str] = []
    activate = trainer.supernet.activate

    def note(config):
        keys.append(config.key)
        activate(config)

    trainer.supernet.activate = note
    losses = [trainer.train_step() for _ in range(STEPS)]
    activate(space.max_config())
    recalibrate(trainer.supernet, DATA.train.images, 40, world)
    sequence = torch.tensor(list(",".join(keys).encode()), dtype=torch.uint8)
    return {
        **trainer.supernet.state_dict(),
        "configs": sequence,
        "losses": torch.tensor(losses),
    }


def whole_run(world: World, folder: Path) -> dict[str, Tensor]:
    """A training from its start to its end."""
    return train_supernet(SPACE, CONFIG, DATA, folder / "whole", world=world).state_dict()


def stopped_run(world: World, folder: Path) -> dict[str, Tensor]:
    """The same, stopped by the last worker and gone on with."""
    steps = 0

    def stop() -> bool:
        nonlocal steps
        steps += 1
        return world.rank == world.size - 1 and steps == STOPPED_AFTER

    try:
        train_supernet(SPACE, CONFIG, DATA, folder / "stopped", world=world, stop=stop)
    except TrainingStoppedError:
        world.barrier()
    assert steps == STOPPED_AFTER
    found = {path.name for path in (folder / "stopped").iterdir()}
    assert found == {"step-00000003", f"step-{STOPPED_AFTER:08d}"}
    world.barrier()
    return train_supernet(SPACE, CONFIG, DATA, folder / "stopped", world=world).state_dict()


CASES: dict[str, Callable[[World, Path], dict[str, Tensor]]] = {
    case.__name__: case
    for case in (
        batch_norm,
        sum_gradient,
        sandwich,
        sandwich_vit,
        sandwich_layer_norm,
        whole_run,
        stopped_run,
    )
}


def main(rank: int, size: int, folder: Path) -> None:
    """Do every case as one of `size` processes."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'rendezvous'}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=60),
    )
    results = {
        f"{name}/{key}": tensor.clone()
        for name, case in CASES.items()
        for key, tensor in case(TorchWorld(), folder).items()
    }
    save_file(results, folder / f"rank{rank}.safetensors")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
