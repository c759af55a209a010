"""Normalisation of images by a mean and a standard deviation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Normalisation:
    """x -> (x - mean) / std, with one value for each channel or one for all.

    Attributes:
        mean: Of pixels in 0..1.
        std: Likewise, above 0.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return set(self.mean) == {0.0} and set(self.std) == {1.0}

    def apply(self, images: Tensor) -> Tensor:
        """float32 [n, c, h, w] in 0..1 -> normalised; the same tensor when nothing changes."""
        if self.is_identity:
            return images
        return (images - _spread(self.mean, images)) / _spread(self.std, images)

    def invert(self, images: Tensor) -> Tensor:
        """Normalised float32 [n, c, h, w] -> 0..1; the same tensor when nothing changes."""
        if self.is_identity:
            return images
        return images * _spread(self.std, images) + _spread(self.mean, images)


def _spread(values: tuple[float, ...], images: Tensor) -> Tensor:
    """[1, channels or 1, 1, 1]."""
    return torch.tensor(values, dtype=images.dtype, device=images.device).view(1, -1, 1, 1)
