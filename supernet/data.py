"""Image classification data: three splits by a seed, resizing, augmentation.

The search reads `train` and `selection`; only the final report reads `report`.
"""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor

from supernet.errors import DataError

SPLITS = ("train", "selection", "report")
_FEWEST_PER_CLASS = 5


class DataConfig(BaseModel):
    """Which data, and how it is split.

    Attributes:
        name: `digits` (scikit-learn's 8x8 handwritten digits) or `npz`.
        path: For `npz` only: a file with `images` [n, h, w] or [n, c, h, w] and integer `labels`
            [n]. Integer images hold 0 to 255, float images 0 to 1. Made absolute.
        seed: Decides the stratified split; below 2**31.
        selection_share: Share of the images in the selection split.
        report_share: Share of the images in the report split.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern="^(digits|npz)$")] = "digits"
    path: Path | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    selection_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.2
    report_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.2

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        # A stored job is continued from other working folders, and by other processes.
        return None if path is None else path.absolute()

    @model_validator(mode="after")
    def _path_fits_name(self) -> Self:
        if self.name == "npz" and self.path is None:
            raise ValueError("data set 'npz' needs a path to a .npz file with images and labels")
        if self.name != "npz" and self.path is not None:
            raise ValueError(
                f"data set {self.name!r} has no path, got '{self.path}'; for a file of your own "
                "write 'name: npz'"
            )
        return self


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Images float32 [n, c, h, w] in 0..1 and labels int64 [n]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class DataSplits:
    """The three disjoint splits and the number of classes."""

    train: ImageSet
    selection: ImageSet
    report: ImageSet
    classes: int

    def split(self, name: str) -> ImageSet:
        """The split called `name`.

        Raises:
            DataError: No such split; the message lists them.
        """
        if name not in SPLITS:
            raise DataError(f"unknown split {name!r}; allowed: {', '.join(SPLITS)}")
        chosen: ImageSet = getattr(self, name)
        return chosen


def load_data(config: DataConfig) -> DataSplits:
    """Read the data and split it, stratified by class; equal for equal configs.

    Raises:
        DataError: The file is missing or malformed, holds one class, or too few images of one.
    """
    images, labels = _digits() if config.path is None else _npz(config.path)
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        raise DataError(f"the data set has {len(classes)} class; at least 2 are needed")
    if counts.min() < _FEWEST_PER_CLASS:
        raise DataError(
            f"class {classes[counts.argmin()]} has {counts.min()} images; "
            f"at least {_FEWEST_PER_CLASS} of each are needed for three splits"
        )
    if not np.array_equal(classes, np.arange(len(classes))):
        raise DataError(f"labels must be 0 to {len(classes) - 1}; found {classes.tolist()[:12]}")
    parts = _stratified(labels, (config.selection_share, config.report_share), config.seed)
    sets = [
        ImageSet(torch.from_numpy(images[p]), torch.from_numpy(labels[p].astype(np.int64)))
        for p in parts
    ]
    return DataSplits(sets[2], sets[0], sets[1], len(classes))


def _stratified(
    labels: NDArray[np.int64], shares: tuple[float, float], seed: int
) -> list[NDArray[np.int64]]:
    """Indices of the selection, report and train splits; each class is split by `shares`."""
    rng = np.random.default_rng(seed)
    parts: list[list[NDArray[np.int64]]] = [[], [], []]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        sizes = [max(1, round(share * len(members))) for share in shares]
        for part, chunk in zip(parts, np.split(members, np.cumsum(sizes)), strict=True):
            part.append(chunk)
    return [rng.permutation(np.concatenate(part)) for part in parts]


def _digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    return (digits.images[:, None] / 16).astype(np.float32), digits.target.astype(np.int64)


def _npz(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise DataError(
                f"cannot read images and labels from {path}: it holds one array (.npy); "
                "allowed: a .npz file with both"
            )
        with file:
            images, labels = file["images"], file["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot read images and labels from {path}: {error}") from None
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise DataError(
            f"{path} has images {images.shape} and {labels.dtype} labels {labels.shape}; "
            "allowed: images [n, h, w] or [n, c, h, w] and integer labels [n]"
        )
    if images.dtype.kind not in "iuf":
        raise DataError(f"{path} has images of dtype {images.dtype}; allowed: numbers")
    largest = 255 if images.dtype.kind in "iu" else 1
    if images.size and not (images.min() >= 0 and images.max() <= largest):
        raise DataError(
            f"{path} has {images.dtype} images from {images.min()} to {images.max()}; "
            f"allowed: 0 to {largest}"
        )
    images = (images / largest).astype(np.float32)
    return images, labels.astype(np.int64)


def resize(images: Tensor, resolution: int) -> Tensor:
    """Bilinear [n, c, h, w] -> [n, c, resolution, resolution]; the same images when they fit."""
    if images.shape[-2:] == (resolution, resolution):
        return images
    size = (resolution, resolution)
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Largest random changes of an image.

    Attributes:
        rotation: Degrees.
        scale: Relative change of the size.
        shift: Share of the image's height and width.
        shear: Tangent of the angle.
    """

    rotation: float = 12.0
    scale: float = 0.12
    shift: float = 0.1
    shear: float = 0.12


def augment(images: Tensor, strength: Augmentation, rng: np.random.Generator) -> Tensor:
    """A random affine map of each image [n, c, h, w], uniform in its four changes; zeros enter at
    the borders. All randomness comes from `rng`."""
    n = len(images)

    def uniform(bound: float, count: int = 1) -> NDArray[np.float64]:
        return rng.uniform(-bound, bound, (count, n))

    (angle,) = uniform(math.radians(strength.rotation))
    width, height = 1 + uniform(strength.scale, 2)
    (shear,) = uniform(strength.shear)
    across, down = uniform(2 * strength.shift, 2)  # the grid spans -1..1
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.stack(
        [
            np.stack([cos * width, (shear * cos - sin) * height, across], axis=-1),
            np.stack([sin * width, (shear * sin + cos) * height, down], axis=-1),
        ],
        axis=1,
    )  # [n, 2, 3]
    theta = torch.from_numpy(matrix.astype(np.float32))
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", align_corners=False)
