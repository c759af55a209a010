"""One training step on a batch: forward, objective, backward, update, for each of its configs."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.config import Config
from supernet.config import Precision, SupernetConfig
from supernet.data import resize
from supernet.distributed import World
from supernet.float32 import activate_float32
from supernet.objectives import OBJECTIVES, Objective, StepContext, TaskConfig, TaskObjective
from supernet.objectives.teacher import Teacher
from supernet.regularisers import REGULARIZERS, Regularizer
from supernet.samplers import Draw
from supernet.schedule import Rates
from supernet.shared_prefix import SharedPrefix
from supernet.supernet import Supernet
from supernet.updates import UPDATES, UpdateRule


class Descent:
    """What happens to a supernet in a step, given the configs and the batch.

    Args:
        supernet: Trained in place.
        config: Its objective, update rule, regulariser and external teacher.
        world: The workers that share every batch.

    Raises:
        CheckpointError: The external teacher cannot be read.
        SupernetConfigError: The external teacher has other channels or classes.
    """

    def __init__(self, supernet: Supernet, config: SupernetConfig, world: World) -> None:
        self.supernet, self.config, self.world = supernet, config, world
        self.objective: Objective = OBJECTIVES.get(config.objective.name)(
            config.objective, config.label_smoothing
        )
        self._task = TaskObjective(TaskConfig(), config.label_smoothing)
        self.update: UpdateRule = UPDATES.get(config.update.name)(
            supernet, config.update, config.weight_decay, world
        )
        self.regularizer: Regularizer | None = None
        if config.regularizer is not None:
            self.regularizer = REGULARIZERS.get(config.regularizer.name)(config.regularizer)
        self.teacher: Teacher | None = None
        if config.teacher is not None:
            self.teacher = Teacher(config.teacher, supernet.space.family, world.device)

    def step(
        self,
        draws: list[Draw],
        images: Tensor,
        labels: Tensor,
        rates: Rates,
        progress: float | None = None,
    ) -> float:
        """One step: forward and backward of every config, and the updates.

        Args:
            draws: The configs and their roles.
            images: float32 [n, c, r, r], this worker's rows of the batch.
            labels: int64 [n].
            rates: Learning rates.
            progress: Share of the phase of sampled configs that lies behind; None in the warm-up,
                in which configs are in float32 and learn from the labels.

        Returns:
            The loss of the first config, over the whole batch.
        """
        sampled = progress is not None
        objective = self.objective if sampled else self._task
        if sampled:
            draws = objective.complete(draws)
        context = StepContext(progress or 0.0)
        if sampled and self.teacher is not None:
            context.teacher = self.teacher.logits(images)
        first = torch.zeros(())
        resized: dict[int, Tensor] = {}
        self.update.begin(rates)
        with self._shared_prefix(len(draws)) as prefix:
            for draw in draws:
                (self.supernet.activate if sampled else self._activate_float32)(draw.config)
                resolution = self.supernet.resolution
                if resolution not in resized:
                    resized[resolution] = resize(images, resolution)
                if prefix is not None:
                    prefix.share(resized[resolution])
                    prefix.keeps = draw is not draws[-1]
                logits = self._forward(resized[resolution])
                loss = self._rows() * objective.loss(draw, logits, labels, context)
                torch.autograd.backward(self.update.share(len(draws)) * loss)
                if not context.earlier:
                    first = loss.detach()
                    self._regularize(sampled)
                context.earlier.append((draw, logits.detach()))
                self.update.after_backward(draw)
            if prefix is not None:
                prefix.backward()
        self.update.finish()
        return self._mean_over_workers(first)

    @torch.no_grad()
    def losses(
        self, configs: Iterable[Config], images: Tensor, labels: Tensor
    ) -> dict[Config, float]:
        """Mean cross-entropy, in nats, of each config over the whole batch of a step."""
        found = {}
        for config in configs:
            self.supernet.activate(config)
            loss = self._rows() * F.cross_entropy(self._forward(images), labels)
            found[config] = self._mean_over_workers(loss)
        return found

    def _shared_prefix(self, configs: int) -> AbstractContextManager[SharedPrefix | None]:
        """What a step of so many configs shares; None where weights change between them."""
        if configs == 1 or self.update.updates_between:
            return nullcontext()
        return self.supernet.shared_prefix()

    def _activate_float32(self, config: Config) -> None:
        activate_float32(self.supernet, config)

    def _forward(self, images: Tensor) -> Tensor:
        """float32 logits [n, classes] of the active subnet for this worker's images [n, c, r, r] of
        a batch, of any resolution."""
        images = resize(images, self.supernet.resolution)
        is_half = self.config.precision == Precision.BF16
        autocast = torch.autocast(self.world.device.type, torch.bfloat16, enabled=is_half)
        with self.supernet.shared_batches(self.world), autocast:
            logits: Tensor = self.supernet(images)
        return logits.float()

    def _rows(self) -> float:
        """What a mean over this worker's rows counts in the mean over the workers."""
        return self.world.share(self.config.batch_size)

    def _mean_over_workers(self, loss: Tensor) -> float:
        return float(self.world.sum(loss)) / self.world.size

    def _regularize(self, sampled: bool) -> None:
        """Add the gradients of the regulariser."""
        regularizer = self.regularizer
        if regularizer is not None and (sampled or regularizer.config.warmup):
            torch.autograd.backward(regularizer.loss(self.supernet))
