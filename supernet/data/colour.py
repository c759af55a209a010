"""Changes of the colours of images in 0..1; every function gives images in 0..1, too."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from supernet.data.chance import Chance

_LUMA = (0.299, 0.587, 0.114)
_SMALLEST_RANGE = 1e-6


def grey(images: Tensor) -> Tensor:
    """[n, c, h, w] -> [n, 1, h, w]: the luma of RGB, the mean of other channels."""
    if images.shape[1] != len(_LUMA):
        return images.mean(1, keepdim=True)
    weights = torch.tensor(_LUMA, dtype=images.dtype, device=images.device)
    return (images * weights.view(1, -1, 1, 1)).sum(1, keepdim=True)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with black: [n, c, h, w] times factor [n, 1, 1, 1]."""
    return (images * factor).clamp(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend each image with its mean grey; factor [n, 1, 1, 1], 1 changes nothing."""
    middle = grey(images).mean((2, 3), keepdim=True)
    return torch.lerp(middle, images, factor).clamp(0, 1)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blend each pixel with its grey; factor [n, 1, 1, 1], 1 changes nothing."""
    return torch.lerp(grey(images), images, factor).clamp(0, 1)


def auto_contrast(images: Tensor) -> Tensor:
    """Stretch every channel of every image to 0..1; one of a single value stays."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    width = high - low
    stretched = (images - low) / width.clamp(min=_SMALLEST_RANGE)
    return torch.where(width > _SMALLEST_RANGE, stretched, images)


def posterize(images: Tensor, bits: int) -> Tensor:
    """Keep the highest bits of 8-bit pixels."""
    step = 2 ** (8 - bits)
    return torch.floor(images * 255 / step) * step / 255


def solarize(images: Tensor, threshold: float) -> Tensor:
    """Invert pixels at or above the threshold."""
    return torch.where(images >= threshold, 1 - images, images)


def jitter(
    images: Tensor,
    strengths: tuple[float, float, float],
    rng: Chance,
) -> Tensor:
    """Random brightness, contrast and saturation of each image, in this order.

    Args:
        images: float32 [n, c, h, w] in 0..1.
        strengths: Largest relative change of each; 0 changes nothing.
        rng: All randomness comes from it.
    """
    for change, strength in zip((brightness, contrast, saturation), strengths, strict=True):
        if strength:
            drawn = rng.uniform(1 - strength, 1 + strength, len(images)).astype(np.float32)
            factor = torch.from_numpy(drawn)[:, None, None, None]
            images = change(images, factor.to(images.device))
    return images
