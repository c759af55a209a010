"""Steps of a supernet's training: resumable, deterministic in (seed, step).

Phases: warm-up of the largest network in float32; importance order of the channels; calibration of
the quantisers; then configs, drawn by a config sampler, whose losses an objective says and whose
gradients an update rule applies.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from spaces.config import Config
from spaces.space import SearchSpace
from supernet.batches import Batches
from supernet.checkpoint import Checkpoint
from supernet.config import SupernetConfig
from supernet.conflicts import check_choices
from supernet.data import DataSplits, resize
from supernet.descent import Descent
from supernet.distributed import SingleWorld, World
from supernet.errors import (
    CheckpointError,
    ForeignCheckpointError,
    SupernetConfigError,
)
from supernet.families import build_supernet
from supernet.hessian import layer_eigenvalues
from supernet.importance import reorder_channels
from supernet.samplers import SAMPLERS, ConfigSampler, Draw, SandwichSampler
from supernet.schedule import Horizon, Rates, ramped_cosine

_CALIBRATION_IMAGES = 256
_CALIBRATION_CONFIGS = 4
_CALIBRATION_STREAM = 3
_WARMUP_FLOOR = 0.05


def check_training(space: SearchSpace, config: SupernetConfig, data: DataSplits) -> None:
    """Refuse options and data with which a supernet of `space` cannot be trained.

    Raises:
        SupernetConfigError: The batch is larger than the training split, the data has other
            channels or classes than the space, or options contradict one another.
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
    check_choices(space, config)


class Trainer:
    """A training run that knows its step and can be saved and restored at any of them.

    All randomness is a function of (seed, step) and of what the sampler observed, so a checkpoint
    needs no generator state and a resumed run equals an uninterrupted one exactly (on as many
    threads). The workers of a world draw the same configs, share every batch and have the same
    weights after every step: up to rounding those of one worker with the whole batch.

    Args:
        space: The search space.
        config: Training options.
        data: Only its training split is read.
        world: The workers that share every batch; default: this process alone, on the CPU.

    Raises:
        SupernetConfigError: A batch is larger than the training split or smaller than the number
            of workers, the classes or channels of the data or the teacher are not the space's, or
            options contradict one another.
        CheckpointError: The external teacher cannot be read.
    """

    def __init__(
        self,
        space: SearchSpace,
        config: SupernetConfig,
        data: DataSplits,
        world: World | None = None,
    ) -> None:
        check_training(space, config, data)
        self.space, self.config, self.world = space, config, world or SingleWorld()
        if config.batch_size < self.world.size:
            raise SupernetConfigError(
                f"batch_size {config.batch_size} is smaller than the number of workers, "
                f"{self.world.size}; every worker needs an image"
            )
        largest = int(space.max_config()["resolution"])
        self.batches = Batches(data.train, config, largest, self.world)
        epoch = self.batches.per_epoch
        self.warmup_steps = config.warmup_epochs * epoch
        self.total_steps = self.warmup_steps + config.epochs * epoch
        self.horizon = Horizon(self.warmup_steps, config.epochs * epoch, epoch)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.supernet = build_supernet(space, config.quantizer).to(self.world.device)
        self.warmup_sampler = SandwichSampler(space, config.random_configs, config.seed)
        self.sampler: ConfigSampler = SAMPLERS.get(config.sampler.name)(
            space, config.random_configs, config.seed, config.sampler, self.horizon
        )
        self.descent = Descent(self.supernet, config, self.world)
        # Once: it reads all images and the teacher, which is the one that was loaded here.
        self._identity = self._decisive()
        self.step = 0
        self.sandwich_started = False

    # -- one step -------------------------------------------------------------------------------

    def train_step(self) -> float:
        """Do the next step; returns the loss of its first config."""
        if self.step >= self.warmup_steps and not self.sandwich_started:
            self.start_sandwich()
        if self.sandwich_started:
            self._tell_traces(self.sampler.trace_probes(self.step))
        self.supernet.train()
        images, labels = self.batches.batch(self.step)
        if self.sandwich_started:
            draws = self.sampler.sample(self.step)
            progress = self.horizon.progress(self.step)
            loss = self.descent.step(draws, images, labels, self._rates(), progress)
            self._tell_losses(images, labels)
        else:
            draws = self.warmup_sampler.sample(self.step)[:1]
            loss = self.descent.step(draws, images, labels, self._rates())
        self.step += 1
        return loss

    def _tell_losses(self, images: Tensor, labels: Tensor) -> None:
        """Tell the sampler what it wants to know of the step, after its update."""
        losses = self.descent.losses(self.sampler.to_score(self.step), images, labels)
        if losses:
            self.sampler.observe(self.step, losses)

    def _tell_traces(self, probes: int) -> None:
        """Tell the sampler how sharply the loss bends in each layer, where it wants to know."""
        if not probes:
            return
        images, labels = self.batches.first(_CALIBRATION_IMAGES)
        seed = self.config.seed + self.step
        traces = layer_eigenvalues(self.supernet, images, labels, probes, seed)
        self.sampler.set_traces(self.step, traces)

    # -- phases ---------------------------------------------------------------------------------

    def start_sandwich(self) -> None:
        """Order channels by importance, calibrate the quantisers, restart the optimiser; from here
        on the sampler draws the configs.

        Every worker does it all with the same images, so that all have the same quantisers.
        """
        reorder_channels(self.supernet)
        images, _ = self.batches.first(_CALIBRATION_IMAGES)

        def batches() -> Iterator[tuple[Config, Tensor]]:
            for draw in self._calibration_draws():
                resolution = int(draw.config["resolution"])
                yield draw.config, resize(images, resolution)

        self.supernet.calibrate(batches())
        # The reordered weights no longer match the warm-up's moments.
        self.descent.update.reset()
        self.sandwich_started = True

    def _calibration_draws(self) -> list[Draw]:
        sampler = SandwichSampler(
            self.space, _CALIBRATION_CONFIGS, (self.config.seed << 8) + _CALIBRATION_STREAM
        )
        return sampler.sample(0)

    def _rates(self) -> Rates:
        config = self.config
        if not self.sandwich_started:
            factor = ramped_cosine(self.step, self.warmup_steps, _WARMUP_FLOOR)
            return Rates(config.warmup_learning_rate * factor, 0.0)
        factor = ramped_cosine(self.step - self.warmup_steps, self.horizon.steps, 0.0)
        return Rates(config.learning_rate * factor, config.quantizer_learning_rate * factor)

    # -- saving ---------------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """Everything needed to go on from the present step."""
        tensors = {f"supernet.{n}": t for n, t in self.supernet.state_dict().items()}
        tensors |= {f"optimizer.{n}": t for n, t in self.descent.update.tensors().items()}
        state = {
            "identity": self._identity,
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
            if checkpoint.state["identity"] != self._identity:
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
        parts: dict[str, dict[str, Tensor]] = {"supernet": {}, "optimizer": {}}
        for name, tensor in checkpoint.tensors.items():
            kind, _, rest = name.partition(".")
            parts[kind][rest] = tensor
        self.supernet.load_state_dict(parts["supernet"])
        self.descent.update.load_tensors(parts["optimizer"])
        self.step, self.sandwich_started = checkpoint.step, started

    def _decisive(self) -> dict[str, object]:
        return {
            "space": self.space.key,
            "config": self.config.decisive(),
            "train": self.batches.images.fingerprint,
        }
