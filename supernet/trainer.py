"""Training of a supernet: resumable, deterministic in (seed, step), safe to kill at any time.

Phases: warm-up of the largest network in float32; importance order of the channels; calibration of
the quantisers; the sandwich rule with in-place distillation and random precisions.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spaces.config import Config
from spaces.space import SearchSpace
from supernet.checkpoint import Checkpoint, load_latest, save_checkpoint
from supernet.config import SupernetConfig
from supernet.data import DataSplits, augment, resize
from supernet.errors import CheckpointError, ForeignCheckpointError, SupernetConfigError
from supernet.families import build_supernet
from supernet.importance import reorder_channels
from supernet.objective import cross_entropy, distillation
from supernet.recalibration import recalibrate
from supernet.sampler import ConfigSampler, Draw, Role, SandwichSampler
from supernet.store import save_supernet
from supernet.supernet import Supernet

Progress = Callable[[str, int, int], None]

_CALIBRATION_IMAGES = 256
_CALIBRATION_CONFIGS = 4
_RAMP_SHARE = 0.05
_WARMUP_FLOOR = 0.05
# Independent random streams; each is further keyed by seed and step or epoch.
_ORDER_STREAM, _AUGMENTATION_STREAM, _CALIBRATION_STREAM = 1, 2, 3

_log = logging.getLogger(__name__)


def check_training(space: SearchSpace, config: SupernetConfig, data: DataSplits) -> None:
    """Refuse options and data with which a supernet of `space` cannot be trained.

    Raises:
        SupernetConfigError: The batch is larger than the training split, or the data has other
            channels or classes than the space.
    """
    if config.batch_size > len(data.train):
        raise SupernetConfigError(
            f"batch_size {config.batch_size} exceeds the {len(data.train)} training images"
        )
    found = (data.train.images.shape[1], data.classes)
    wanted = (space.family.input_channels, space.family.classes)
    if found != wanted:
        raise SupernetConfigError(
            f"the data has (channels, classes) {found}; space {space.name} has {wanted}"
        )


class Trainer:
    """A training run that knows its step and can be saved and restored at any of them.

    All randomness is a function of (seed, step), so a checkpoint needs no generator state and a
    resumed run equals an uninterrupted one exactly (on as many threads).

    Args:
        space: The search space.
        config: Training options.
        data: Only its training split is read.

    Raises:
        SupernetConfigError: A batch is larger than the training split, or the data's classes or
            channels are not the space's.
    """

    def __init__(self, space: SearchSpace, config: SupernetConfig, data: DataSplits) -> None:
        check_training(space, config, data)
        self.space, self.config, self.train = space, config, data.train
        self.sampler: ConfigSampler = SandwichSampler(space, config.random_configs, config.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.supernet = build_supernet(space)
        self.steps_per_epoch = len(data.train) // config.batch_size
        self.warmup_steps = config.warmup_epochs * self.steps_per_epoch
        self.total_steps = self.warmup_steps + config.epochs * self.steps_per_epoch
        self.step = 0
        self.sandwich_started = False
        self.optimizer = self._optimizer()

    # -- one step -------------------------------------------------------------------------------

    def train_step(self) -> float:
        """Do the next step; returns the loss of the largest network."""
        if self.step >= self.warmup_steps and not self.sandwich_started:
            self.start_sandwich()
        self.supernet.train()
        self._set_learning_rates()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._backward(self._batch(), self._draws())
        self.optimizer.step()
        self.step += 1
        return loss

    def _draws(self) -> list[Draw]:
        draws = self.sampler.sample(self.step)
        return draws if self.sandwich_started else draws[:1]

    def _backward(self, batch: tuple[Tensor, Tensor], draws: list[Draw]) -> float:
        images, labels = batch
        teacher: Tensor | None = None
        first = 0.0
        for draw in draws:
            self.supernet.activate(draw.config)
            logits = self.supernet(resize(images, self.supernet.resolution))
            if draw.role is Role.MAX or teacher is None:
                loss = cross_entropy(logits, labels, self.config.label_smoothing)
                teacher, first = logits.detach(), float(loss.detach())
            else:
                loss = distillation(logits, teacher)
            torch.autograd.backward(loss)
        return first

    def _batch(self) -> tuple[Tensor, Tensor]:
        """Images [batch, c, r, r] at the largest resolution of the space, and labels [batch]."""
        config = self.config
        epoch, place = divmod(self.step, self.steps_per_epoch)
        order = np.random.default_rng((config.seed, _ORDER_STREAM, epoch)).permutation(
            len(self.train)
        )
        chosen = torch.from_numpy(order[place * config.batch_size :][: config.batch_size])
        rng = np.random.default_rng((config.seed, _AUGMENTATION_STREAM, self.step))
        largest = int(self.space.max_config()["resolution"])
        images = augment(
            self.train.images[chosen],
            config.augmentation,
            rng,
            largest,
            self.train.normalisation,
        )
        return images, self.train.labels[chosen]

    # -- phases ---------------------------------------------------------------------------------

    def start_sandwich(self) -> None:
        """Order channels by importance, calibrate the quantisers, restart the optimiser."""
        reorder_channels(self.supernet)
        images = self.train.images[:_CALIBRATION_IMAGES]

        def batches() -> Iterator[tuple[Config, Tensor]]:
            for draw in self._calibration_draws():
                resolution = int(draw.config["resolution"])
                yield draw.config, resize(images, resolution)

        self.supernet.calibrate(batches())
        # The reordered weights no longer match the warm-up's moments.
        self.optimizer = self._optimizer()
        self.sandwich_started = True

    def _calibration_draws(self) -> list[Draw]:
        sampler = SandwichSampler(
            self.space, _CALIBRATION_CONFIGS, (self.config.seed << 8) + _CALIBRATION_STREAM
        )
        return sampler.sample(0)

    def _optimizer(self) -> torch.optim.Optimizer:
        weights = self.supernet.weight_parameters()
        groups = [
            {"params": [p for p in weights if p.dim() > 1], "role": "weights"},
            {"params": [p for p in weights if p.dim() <= 1], "role": "weights"},
            {"params": self.supernet.quantizer_parameters(), "role": "quantizers"},
        ]
        optimizer = torch.optim.AdamW(groups, lr=1.0, weight_decay=0.0, fused=True)
        optimizer.param_groups[0]["weight_decay"] = self.config.weight_decay
        return optimizer

    def _set_learning_rates(self) -> None:
        config = self.config
        if self.sandwich_started:
            factor = _schedule(
                self.step - self.warmup_steps, self.total_steps - self.warmup_steps, 0.0
            )
            rates = {
                "weights": config.learning_rate * factor,
                "quantizers": config.quantizer_learning_rate * factor,
            }
        else:
            factor = _schedule(self.step, self.warmup_steps, _WARMUP_FLOOR)
            rates = {"weights": config.warmup_learning_rate * factor, "quantizers": 0.0}
        for group in self.optimizer.param_groups:
            group["lr"] = rates[group["role"]]

    # -- saving ---------------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """Everything needed to go on from the present step."""
        tensors = {f"supernet.{n}": t for n, t in self.supernet.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            for name, value in values.items():
                tensors[f"optimizer.{index}.{name}"] = value
        state = {
            "identity": self._identity(),
            "sandwich_started": self.sandwich_started,
            "sampler": self.sampler.state(),
        }
        return Checkpoint(self.step, tensors, state)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint of this very run.

        Raises:
            ForeignCheckpointError: It belongs to another space, data set or training options.
            CheckpointError: A part is missing or of another form; the message names the folder.
                The trainer must then be restored from another checkpoint before it goes on.
        """
        named = "the checkpoint" if checkpoint.path is None else f"checkpoint {checkpoint.path}"
        try:
            if checkpoint.state["identity"] != self._identity():
                raise ForeignCheckpointError(
                    f"{named} was made with another space, data set or training options; "
                    "train in another folder"
                )
            self._restore(checkpoint)
        except (KeyError, IndexError, ValueError, TypeError, RuntimeError) as error:
            raise CheckpointError(f"cannot go on from {named}: {error!r}") from None

    def _restore(self, checkpoint: Checkpoint) -> None:
        started = bool(checkpoint.state["sandwich_started"])
        self.sampler.load_state(checkpoint.state["sampler"])
        weights: dict[str, Tensor] = {}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in checkpoint.tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "supernet":
                weights[rest] = tensor
            else:
                index, _, field = rest.partition(".")
                moments.setdefault(int(index), {})[field] = tensor
        self.supernet.load_state_dict(weights)
        self.optimizer = self._optimizer()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for number, fields in moments.items():
            # AdamW itself would only fail at its next step.
            wrong = {
                n for n in ("exp_avg", "exp_avg_sq") if fields[n].shape != parameters[number].shape
            }
            if wrong:
                raise ValueError(f"optimizer.{number} has another shape: {sorted(wrong)}")
        fresh = self.optimizer.state_dict()
        self.optimizer.load_state_dict({"state": moments, "param_groups": fresh["param_groups"]})
        self.step, self.sandwich_started = checkpoint.step, started

    def _identity(self) -> dict[str, object]:
        return {
            "space": self.space.key,
            "config": self.config.decisive(),
            "train": self.train.fingerprint,
        }


def train_supernet(
    space: SearchSpace,
    config: SupernetConfig,
    data: DataSplits,
    folder: str | Path,
    progress: Progress | None = None,
) -> Supernet:
    """Train a supernet, or go on from the newest checkpoint in `folder`.

    May be killed at any time: the same call then loses at most `config.checkpoint_every` steps
    and ends in the same weights. A newest checkpoint that is damaged or unusable is passed over
    with a warning.

    Args:
        space: The search space.
        config: Training options.
        data: Only its training split is read.
        folder: Holds the checkpoints; another run's checkpoints are refused.
        progress: Called with (phase, steps done, steps in the phase) after every step.

    Returns:
        The trained supernet in evaluation mode, its largest config active and recalibrated; the
        same is stored in `folder` for `load_supernet`.

    Raises:
        CheckpointError: No checkpoint in the folder can be used, or they belong to another run.
        SupernetConfigError: The options do not fit the data.
    """
    report: Progress = progress or (lambda phase, done, total: None)
    trainer = Trainer(space, config, data)
    _, problems = load_latest(folder, trainer.restore)
    for problem in problems:
        _log.warning("%s; going on from an earlier checkpoint", problem)
    sandwich_steps = trainer.total_steps - trainer.warmup_steps
    while trainer.step < trainer.total_steps:
        trainer.train_step()
        if trainer.step <= trainer.warmup_steps:
            report("warm-up", trainer.step, trainer.warmup_steps)
        else:
            report("sandwich", trainer.step - trainer.warmup_steps, sandwich_steps)
        if trainer.step % config.checkpoint_every == 0 or trainer.step == trainer.total_steps:
            save_checkpoint(folder, trainer.checkpoint())
    supernet = trainer.supernet
    supernet.activate(space.max_config())
    # Training keeps no statistics: saved before this, the supernet would have none.
    recalibrate(supernet, data.train.images)
    save_supernet(supernet, folder)
    return supernet


def _schedule(step: int, total: int, floor: float) -> float:
    """Linear ramp, then a cosine from 1 to `floor`."""
    ramp = max(1, round(_RAMP_SHARE * total))
    if step < ramp:
        return (step + 1) / ramp
    angle = math.pi * (step - ramp) / max(1, total - ramp)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(angle))
