"""The batches of a training run: a function of (seed, step), the same for any number of workers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from supernet.config import SupernetConfig
from supernet.data import ImageSet, augment
from supernet.data.chance import RowsOfBatch
from supernet.distributed import World

# Independent random streams; each is further keyed by seed and step or epoch.
_ORDER_STREAM, _AUGMENTATION_STREAM = 1, 2


class Batches:
    """Shuffled, augmented batches of the training split.

    Args:
        images: The training split.
        config: Batch size, seed and augmentation.
        resolution: Height and width of the batches' images, in pixels.
        world: Whose workers share every batch.
    """

    def __init__(
        self, images: ImageSet, config: SupernetConfig, resolution: int, world: World
    ) -> None:
        self.images, self.config = images, config
        self.resolution, self.world = resolution, world

    @property
    def per_epoch(self) -> int:
        """Whole batches in the split."""
        return len(self.images) // self.config.batch_size

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """This worker's images [n, c, r, r] and labels [n] of step `step`."""
        config = self.config
        epoch, place = divmod(step, self.per_epoch)
        order = np.random.default_rng((config.seed, _ORDER_STREAM, epoch)).permutation(
            len(self.images)
        )
        chosen = torch.from_numpy(order[place * config.batch_size :][: config.batch_size])
        mine = chosen[self.world.rows]
        rng = np.random.default_rng((config.seed, _AUGMENTATION_STREAM, step))
        images = augment(
            self.images.images[mine],
            config.augmentation,
            RowsOfBatch(rng, config.batch_size, self.world.rows),
            self.resolution,
            self.images.normalisation,
        )
        labels = self.images.labels[mine]
        return images.to(self.world.device), labels.to(self.world.device)

    def first(self, count: int) -> tuple[Tensor, Tensor]:
        """The first `count` images [n, c, h, w] and labels [n] as they are, on every worker."""
        images, labels = self.images.images[:count], self.images.labels[:count]
        return images.to(self.world.device), labels.to(self.world.device)
