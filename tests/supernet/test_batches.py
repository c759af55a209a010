from __future__ import annotations

import pytest
import torch

from supernet.batches import Batches
from supernet.config import SupernetConfig
from supernet.data import ImageSet
from supernet.data.augmentation import Augmentation
from supernet.distributed import SingleWorld

CONFIG = SupernetConfig(batch_size=32)


class Worker(SingleWorld):
    """One of several, as far as its rows are concerned."""

    def __init__(self, rank, size):
        super().__init__()
        self.rank, self.size = rank, size


EVERY_CHANGE = Augmentation(
    crop=0.5,
    horizontal_flip=0.5,
    randaugment_operations=2,
    randaugment_magnitude=9,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
)


@pytest.mark.parametrize("strength", [Augmentation(), EVERY_CHANGE], ids=["few", "all"])
def test_workers_share_one_batch(digits, strength):
    config = CONFIG.model_copy(update={"augmentation": strength})
    colour = ImageSet(digits.train.images.repeat(1, 3, 1, 1), digits.train.labels)
    whole, labels = Batches(colour, config, 12, SingleWorld()).batch(7)
    assert whole.shape == (32, 3, 12, 12)
    parts = [Batches(colour, config, 12, Worker(r, 3)).batch(7) for r in range(3)]
    for rank, (images, own) in enumerate(parts):
        torch.testing.assert_close(images, whole[rank::3], atol=0, rtol=0)
        assert torch.equal(own, labels[rank::3])


def test_an_epoch_shows_every_image_once(digits):
    config = SupernetConfig(batch_size=32, rotation=0.0, scale=0.0, shift=0.0, shear=0.0)
    batches = Batches(digits.train, config, 8, SingleWorld())
    seen = torch.cat([batches.batch(step)[0] for step in range(batches.per_epoch)])
    known = digits.train.images.flatten(1)
    nearest = torch.cdist(seen.flatten(1), known).argmin(1)
    # Two images of the split may be alike.
    assert len(set(nearest.tolist())) > 0.98 * len(seen)
    other = torch.cat([batches.batch(batches.per_epoch + s)[1] for s in range(3)])
    assert not torch.equal(other, torch.cat([batches.batch(s)[1] for s in range(3)]))
