"""Reading a data set and splitting it in three.

The search reads `train` and `selection`; only the final report reads `report`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from supernet.data.config import DataConfig
from supernet.data.dataset import Labelled
from supernet.data.encoded import EncodedImages, EncodedRows
from supernet.data.image_set import DataSplits, Images, ImageSet
from supernet.data.normalisation import Normalisation
from supernet.errors import DataError

_FEWEST_PER_CLASS = 5


def load_data(
    config: DataConfig, progress: Callable[[str, int, int], None] | None = None
) -> DataSplits:
    """Read the data and split it, stratified by class; equal for equal configs.

    A report split that the data set brings along stays as it is, and the selection split is taken
    from the rest.

    Args:
        config: The data set and its splits.
        progress: Called with (phase, images done, images) while images are decoded.

    Raises:
        DataError: The data is missing or malformed, holds one class, or too few images of one, or
            `mean` and `std` are for another number of channels.
    """
    found = config.dataset().load()
    classes = _checked(found)
    normalisation = _normalisation(config, found.images.shape[1])
    if isinstance(found.images, EncodedImages):
        report_to = progress or (lambda phase, done, total: None)
        found.images.keep(lambda done, total: report_to("read images", done, total))
    rows = np.arange(len(found.labels))
    if found.report is None:
        shares = (config.selection_share, config.report_share)
        selection, report, train = _stratified(found.labels, rows, shares, config.seed)
    else:
        report, rest = found.report, np.setdiff1d(rows, found.report)
        selection, train = _stratified(found.labels, rest, (config.selection_share,), config.seed)
    train_set, selection_set, report_set = (
        ImageSet(
            _images(found.images, part, normalisation),
            torch.from_numpy(found.labels[part].astype(np.int64)),
            normalisation,
        )
        for part in (train, selection, report)
    )
    return DataSplits(train_set, selection_set, report_set, classes, found.names)


def _images(
    images: NDArray[np.float32] | EncodedImages,
    rows: NDArray[np.int64],
    normalisation: Normalisation,
) -> Images:
    if isinstance(images, EncodedImages):
        return EncodedRows(images, rows, normalisation)
    return normalisation.apply(torch.from_numpy(images[rows]))


def _checked(found: Labelled) -> int:
    """The number of classes; all of them must be in what is trained on, often enough."""
    to_split = found.labels if found.report is None else np.delete(found.labels, found.report)
    present = np.unique(to_split)
    if len(present) < 2:
        raise DataError(f"the data set has {len(present)} classes; at least 2 are needed")
    classes = np.arange(len(found.names) or len(present))
    if not set(present.tolist()) <= set(classes.tolist()):
        raise DataError(f"labels must be 0 to {len(classes) - 1}; found {present.tolist()[:12]}")
    counts = np.bincount(to_split, minlength=len(classes))
    if counts.min() < _FEWEST_PER_CLASS:
        rarest = int(counts.argmin())
        name = f" ({found.names[rarest]})" if found.names else ""
        raise DataError(
            f"class {rarest}{name} has {counts.min()} images; "
            f"at least {_FEWEST_PER_CLASS} of each are needed for three splits"
        )
    if found.report is not None:
        reported = np.unique(found.labels[found.report])
        if not len(reported):
            raise DataError("the report split of the data set has no images")
        if not set(reported.tolist()) <= set(classes.tolist()):
            raise DataError(
                f"the report split has labels {sorted(set(reported.tolist()) - set(classes))}, "
                f"which the training images do not have; they have 0 to {len(classes) - 1}"
            )
    return len(classes)


def _normalisation(config: DataConfig, channels: int) -> Normalisation:
    if config.mean is None or config.std is None:
        return Normalisation()
    for name, values in (("mean", config.mean), ("std", config.std)):
        if len(values) not in (1, channels):
            raise DataError(
                f"'{name}' has {len(values)} values; the images have {channels} channels; "
                f"allowed: 1 or {channels} values"
            )
    return Normalisation(config.mean, config.std)


def _stratified(
    labels: NDArray[np.int64], rows: NDArray[np.int64], shares: Sequence[float], seed: int
) -> list[NDArray[np.int64]]:
    """A part of `rows` for each share, and the rest; each class is split by `shares`, and has at
    least one image in every part.

    Args:
        labels: Of all images, [n].
        rows: Row numbers to split.
        shares: Shares of each class.
        seed: Decides who goes where.
    """
    rng = np.random.default_rng(seed)
    parts: list[list[NDArray[np.int64]]] = [[] for _ in range(len(shares) + 1)]
    for label in np.unique(labels[rows]):
        members = rng.permutation(rows[labels[rows] == label])
        sizes = [max(1, round(share * len(members))) for share in shares]
        while sum(sizes) >= len(members):
            sizes[int(np.argmax(sizes))] -= 1
        for part, chunk in zip(parts, np.split(members, np.cumsum(sizes)), strict=True):
            part.append(chunk)
    return [rng.permutation(np.concatenate(part)) for part in parts]
