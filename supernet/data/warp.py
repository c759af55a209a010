"""Random geometric changes of images."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from supernet.data.chance import Chance

_ASPECT = (3 / 4, 4 / 3)


def warp(images: Tensor, matrices: NDArray[np.float64], padding: str = "zeros") -> Tensor:
    """Bilinear sampling of each image through an affine map.

    Args:
        images: float32 [n, c, h, w].
        matrices: [n, 2, 3], from places in the result to places in the image; both span -1..1.
        padding: What lies outside: `zeros`, or the `border`'s pixels.

    Returns:
        float32 [n, c, h, w].
    """
    return _sampled(images, matrices, images.shape[-2:], padding)


def _sampled(
    images: Tensor, matrices: NDArray[np.float64], size: tuple[int, ...], padding: str
) -> Tensor:
    theta = torch.from_numpy(matrices.astype(np.float32)).to(images.device)
    grid = F.affine_grid(theta, [*images.shape[:2], *size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def random_affine(
    images: Tensor,
    rotation: float,
    scale: float,
    shift: float,
    shear: float,
    rng: Chance,
) -> Tensor:
    """A random affine map of each image [n, c, h, w]; zeros enter at the borders.

    Args:
        images: float32 [n, c, h, w].
        rotation: Largest angle, degrees.
        scale: Largest relative change of width and height.
        shift: Largest share of the width and height.
        shear: Largest tangent of the angle.
        rng: All randomness comes from it.
    """
    n = len(images)

    def uniform(bound: float, count: int = 1) -> NDArray[np.float64]:
        return rng.uniform(-bound, bound, (count, n))

    (angle,) = uniform(math.radians(rotation))
    width, height = 1 + uniform(scale, 2)
    (slant,) = uniform(shear)
    across, down = uniform(2 * shift, 2)  # the grid spans -1..1
    cos, sin = np.cos(angle), np.sin(angle)
    matrices = np.stack(
        [
            np.stack([cos * width, (slant * cos - sin) * height, across], axis=-1),
            np.stack([sin * width, (slant * sin + cos) * height, down], axis=-1),
        ],
        axis=1,
    )  # [n, 2, 3]
    return warp(images, matrices)


def random_resized_crop(images: Tensor, smallest: float, size: int, rng: Chance) -> Tensor:
    """A random part of each image, scaled to `size` (Szegedy et al. 2015).

    Unlike there a part that would stick out is cut back to the image, instead of drawn again.

    Args:
        images: float32 [n, c, h, w].
        smallest: Least share of the image's area.
        size: Height and width of the result.
        rng: All randomness comes from it.

    Returns:
        float32 [n, c, size, size].
    """
    n = len(images)
    area = rng.uniform(smallest, 1, n)
    low, high = map(math.log, _ASPECT)
    root = np.exp(rng.uniform(low, high, n) / 2)
    width = np.minimum(1, np.sqrt(area) * root)
    height = np.minimum(1, np.sqrt(area) / root)
    across, down = (1 - width) * rng.uniform(-1, 1, n), (1 - height) * rng.uniform(-1, 1, n)
    zero = np.zeros(n)
    matrices = np.stack(
        [np.stack([width, zero, across], axis=-1), np.stack([zero, height, down], axis=-1)], axis=1
    )
    return _sampled(images, matrices, (size, size), "border")


def random_flip(images: Tensor, probability: float, rng: Chance) -> Tensor:
    """Each image [n, c, h, w], mirrored left to right with this probability."""
    chosen = torch.from_numpy(rng.random(len(images)) < probability).to(images.device)
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)
