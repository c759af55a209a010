"""Arrays of a user's own, in a `.npz` file."""

from __future__ import annotations

import zipfile

import numpy as np

from spaces.files import sha256_file
from supernet.data.dataset import DATASETS, ImageDataset, Labelled
from supernet.errors import DataError


@DATASETS.register("npz")
class Npz(ImageDataset):
    """`images` [n, h, w] or [n, c, h, w] and integer `labels` [n]; integer images hold 0 to 255,
    float images 0 to 1."""

    path_is = "a .npz file with images and labels"

    def load(self) -> Labelled:
        path = self.path
        assert path is not None
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
        pixels = images.astype(np.float32)
        pixels /= largest
        return Labelled(pixels, labels.astype(np.int64))

    def digest(self) -> str:
        assert self.path is not None
        try:
            return sha256_file(self.path)
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror}") from None
