"""BatchNorm recalibration: statistics of one subnet, from training images."""

from __future__ import annotations

import torch

from supernet.data import Images, resize
from supernet.distributed import SingleWorld, World
from supernet.supernet import Supernet

RECALIBRATION_BATCH = 256
# More images change the estimates no more (Wang et al. 2021, "AttentiveNAS": 64 batches).
_MOST_BATCHES = 64


@torch.no_grad()
def recalibrate(
    supernet: Supernet,
    images: Images,
    batch_size: int = RECALIBRATION_BATCH,
    world: World | None = None,
) -> None:
    """Estimate the active subnet's BatchNorm statistics by a cumulative average over batches.

    Weights stay as they are; earlier statistics do not matter (Yu and Huang 2019). Quantisers
    are active, so that the statistics are those of the quantised subnet.

    Args:
        supernet: With the config of interest activated; ends in evaluation mode.
        images: Training images [n, c, h, w], resized here to the active resolution.
        batch_size: Images a batch; a last batch of fewer is left out, and so is all beyond 64
            batches.
        world: Whose workers share every batch, at least one image each; default: this process
            alone.
    """
    device = next(supernet.parameters()).device
    world = world or SingleWorld(device)
    norms = list(supernet.norms())
    for norm in norms:
        norm.start_recalibration()
    supernet.train()
    try:
        size = min(batch_size, len(images))
        count = min(len(images), _MOST_BATCHES * size)
        with supernet.shared_batches(world):
            for start in range(0, count - size + 1, size):
                mine = images[start + world.rank : start + size : world.size].to(device)
                supernet(resize(mine, supernet.resolution))
    finally:
        for norm in norms:
            norm.stop_recalibration()
        supernet.eval()
