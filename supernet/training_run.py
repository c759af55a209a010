"""A whole training of a supernet in a folder of checkpoints: safe to kill at any time."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

import torch

from spaces.space import SearchSpace
from supernet.allocator import kept_memory
from supernet.checkpoint import load_latest, save_checkpoint
from supernet.config import SupernetConfig
from supernet.data import DataSplits
from supernet.distributed import World
from supernet.errors import CheckpointError, TrainingDivergedError, TrainingStoppedError
from supernet.recalibration import recalibrate
from supernet.store import save_supernet
from supernet.supernet import Supernet
from supernet.trainer import Trainer

Progress = Callable[[str, int, int], None]

_log = logging.getLogger(__name__)


def train_supernet(
    space: SearchSpace,
    config: SupernetConfig,
    data: DataSplits,
    folder: str | Path,
    progress: Progress | None = None,
    world: World | None = None,
    stop: Callable[[], bool] | None = None,
) -> Supernet:
    """Train a supernet, or go on from the newest checkpoint in `folder`.

    May be killed at any time: the same call then loses at most `config.checkpoint_every` steps
    and ends in the same weights. A newest checkpoint that is damaged or unusable is passed over
    with a warning. Every worker of a world makes this call; rank 0 writes, all read.

    Args:
        space: The search space.
        config: Training options.
        data: Only its training split is read.
        folder: Holds the checkpoints; another run's checkpoints are refused.
        progress: Called with (phase, steps done, steps in the phase) after every step; the phases
            are `warm-up` and the name of the sampler.
        world: The workers; default: this process alone, on the CPU.
        stop: Asked after every step; true on one worker ends the training of all.

    Returns:
        The trained supernet on the CPU, in evaluation mode, its largest config active and
        recalibrated; the same is stored in `folder` for `load_supernet`.

    Raises:
        CheckpointError: No checkpoint in the folder can be used, they belong to another run, or the
            workers do not find the same one.
        SupernetConfigError: The options do not fit the data, the workers or one another.
        TrainingDivergedError: The loss is not finite any more.
        TrainingStoppedError: `stop` said so; a checkpoint of the last step is in the folder.
    """
    report: Progress = progress or (lambda phase, done, total: None)
    trainer = Trainer(space, config, data, world)
    world = trainer.world
    _, problems = load_latest(folder, trainer.restore)
    for problem in problems:
        _log.warning("%s; going on from an earlier checkpoint", problem)
    _check_same_step(trainer, folder)
    with kept_memory():
        _train(trainer, folder, report, stop)
    supernet = trainer.supernet
    supernet.activate(space.max_config())
    # Training keeps no statistics: saved before this, the supernet would have none.
    recalibrate(supernet, data.train.images, world=world)
    supernet.cpu()
    if world.rank == 0:
        save_supernet(supernet, folder)
    world.barrier()
    return supernet


def _check_same_step(trainer: Trainer, folder: str | Path) -> None:
    world = trainer.world
    total = world.sum(torch.tensor(trainer.step, dtype=torch.float64, device=world.device))
    if int(total) != trainer.step * world.size:
        raise CheckpointError(
            f"worker {world.rank} finds step {trainer.step} in {folder} and another worker finds "
            "another; the folder must lie where all of them see it"
        )


def _train(
    trainer: Trainer, folder: str | Path, report: Progress, stop: Callable[[], bool] | None
) -> None:
    config, world = trainer.config, trainer.world
    sampled_steps = trainer.total_steps - trainer.warmup_steps
    while trainer.step < trainer.total_steps:
        loss = trainer.train_step()
        if not math.isfinite(loss):
            rate = "" if trainer.sandwich_started else "warmup_"
            raise TrainingDivergedError(
                f"the training diverged: the loss is {loss} in step {trainer.step} of "
                f"{trainer.total_steps}; lower {rate}learning_rate"
            )
        if trainer.step <= trainer.warmup_steps:
            report("warm-up", trainer.step, trainer.warmup_steps)
        else:
            report(config.sampler.name, trainer.step - trainer.warmup_steps, sampled_steps)
        is_asked = torch.tensor(stop is not None and stop(), dtype=torch.float32)
        is_stopped = bool(world.sum(is_asked.to(world.device)) > 0)
        is_due = trainer.step % config.checkpoint_every == 0 or trainer.step == trainer.total_steps
        if world.rank == 0 and (is_due or is_stopped):
            save_checkpoint(folder, trainer.checkpoint())
        if is_stopped and trainer.step < trainer.total_steps:
            raise TrainingStoppedError(
                f"the training was stopped after step {trainer.step} of {trainer.total_steps}; "
                f"it goes on from its checkpoint in {folder}"
            )
