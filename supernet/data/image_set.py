"""Labelled images of one split, and the three splits together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch.nn.functional as F
from torch import Tensor

from spaces.files import sha256_bytes
from supernet.data.encoded import EncodedRows
from supernet.data.normalisation import Normalisation
from supernet.errors import DataError

SPLITS = ("train", "selection", "report")

Images: TypeAlias = Tensor | EncodedRows
"""float32 [n, c, h, w]: in memory, or decoded when rows of it are asked for."""

_NONE = Normalisation()


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Labelled images of one split.

    Attributes:
        images: float32 [n, c, h, w], in 0..1 and then normalised.
        labels: int64 [n].
        normalisation: What the images were normalised by.
    """

    images: Images
    labels: Tensor
    normalisation: Normalisation = _NONE

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of images and labels."""
        if isinstance(self.images, EncodedRows):
            images = self.images.digest.encode()
        else:
            images = self.images.contiguous().numpy().tobytes()
        return sha256_bytes(images + self.labels.contiguous().numpy().tobytes())[:16]


@dataclass(frozen=True, slots=True)
class DataSplits:
    """The three disjoint splits, the number of classes, and their names where they have any."""

    train: ImageSet
    selection: ImageSet
    report: ImageSet
    classes: int
    names: tuple[str, ...] = ()

    def split(self, name: str) -> ImageSet:
        """The split called `name`.

        Raises:
            DataError: No such split; the message lists them.
        """
        if name not in SPLITS:
            raise DataError(f"unknown split {name!r}; allowed: {', '.join(SPLITS)}")
        chosen: ImageSet = getattr(self, name)
        return chosen


def resize(images: Tensor, resolution: int) -> Tensor:
    """Bilinear [n, c, h, w] -> [n, c, resolution, resolution]; the same images when they fit."""
    if images.shape[-2:] == (resolution, resolution):
        return images
    size = (resolution, resolution)
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)
