"""RandAugment (Cubuk et al. 2020) on whole batches.

Of its operations equalize and sharpness are left out; what lies outside an image is mid-grey.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from supernet.data import colour
from supernet.data.chance import Chance
from supernet.data.warp import warp

LARGEST_MAGNITUDE = 10.0
_GREY = 0.5
# At the largest magnitude.
_DEGREES, _SHEAR, _SHIFT, _BLEND, _BITS = 30.0, 0.3, 0.45, 0.9, 4

# (images [n, c, h, w], level 0..1, signs [n] of -1 and 1) -> images.
Operation = Callable[[Tensor, float, NDArray[np.float64]], Tensor]


def _moved(images: Tensor, matrices: NDArray[np.float64]) -> Tensor:
    return warp(images - _GREY, matrices) + _GREY


def _affine(
    size: int,
    right: NDArray[np.float64] | float = 0.0,
    below: NDArray[np.float64] | float = 0.0,
    across: NDArray[np.float64] | float = 0.0,
    down: NDArray[np.float64] | float = 0.0,
) -> NDArray[np.float64]:
    """[n, 2, 3]: the identity with these entries off its diagonal."""
    matrices = np.tile(np.eye(2, 3), (size, 1, 1))
    matrices[:, 0, 1], matrices[:, 1, 0] = right, below
    matrices[:, 0, 2], matrices[:, 1, 2] = across, down
    return matrices


def _rotate(images: Tensor, level: float, signs: NDArray[np.float64]) -> Tensor:
    angle = np.radians(_DEGREES) * level * signs
    matrices = _affine(len(signs), -np.sin(angle), np.sin(angle))
    matrices[:, 0, 0] = matrices[:, 1, 1] = np.cos(angle)
    return _moved(images, matrices)


def _shear_x(images: Tensor, level: float, signs: NDArray[np.float64]) -> Tensor:
    return _moved(images, _affine(len(signs), right=_SHEAR * level * signs))


def _shear_y(images: Tensor, level: float, signs: NDArray[np.float64]) -> Tensor:
    return _moved(images, _affine(len(signs), below=_SHEAR * level * signs))


def _shift_x(images: Tensor, level: float, signs: NDArray[np.float64]) -> Tensor:
    return _moved(images, _affine(len(signs), across=2 * _SHIFT * level * signs))


def _shift_y(images: Tensor, level: float, signs: NDArray[np.float64]) -> Tensor:
    return _moved(images, _affine(len(signs), down=2 * _SHIFT * level * signs))


def _blended(change: Callable[[Tensor, Tensor], Tensor]) -> Operation:
    def apply(images: Tensor, level: float, signs: NDArray[np.float64]) -> Tensor:
        factor = (1 + _BLEND * level * signs).astype(np.float32)
        return change(images, torch.from_numpy(factor).to(images.device).view(-1, 1, 1, 1))

    return apply


OPERATIONS: dict[str, Operation] = {
    "identity": lambda images, _level, _signs: images,
    "auto_contrast": lambda images, _level, _signs: colour.auto_contrast(images),
    "posterize": lambda images, level, _signs: colour.posterize(images, 8 - round(_BITS * level)),
    "solarize": lambda images, level, _signs: colour.solarize(images, 1 - level),
    "brightness": _blended(colour.brightness),
    "contrast": _blended(colour.contrast),
    "saturation": _blended(colour.saturation),
    "rotate": _rotate,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "shift_x": _shift_x,
    "shift_y": _shift_y,
}
"""Name -> operation; level 0 changes nothing but `auto_contrast`, and white pixels of
`solarize`."""


def rand_augment(images: Tensor, operations: int, magnitude: float, rng: Chance) -> Tensor:
    """So many random operations on each image, one after the other.

    Args:
        images: float32 [n, c, h, w] in 0..1.
        operations: How many.
        magnitude: 0 to 10.
        rng: All randomness comes from it.

    Returns:
        float32 [n, c, h, w] in 0..1.
    """
    level = magnitude / LARGEST_MAGNITUDE
    every = list(OPERATIONS.values())
    for _ in range(operations):
        chosen = rng.integers(0, len(every), len(images))
        signs = rng.choice([-1.0, 1.0], len(images))
        images = images.clone()
        for number in np.unique(chosen):
            rows = np.flatnonzero(chosen == number)
            places = torch.from_numpy(rows).to(images.device)
            images[places] = every[number](images[places], level, signs[rows])
    return images
