"""Data sets of the Hugging Face library `datasets`, from the hub or from a local folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from supernet.data.content import files_digest
from supernet.data.dataset import DATASETS, DatasetSettings, ImageDataset, Labelled
from supernet.data.encoded import EncodedImages, EncodedSettings, decode_image
from supernet.errors import DataError


class HuggingFaceSettings(EncodedSettings):
    """Settings of `huggingface`.

    Attributes:
        dataset: Name on the hub, `OWNER/NAME`; None: the folder that the data's path names.
        subset: Name of one of its configurations.
        revision: Commit, branch or tag on the hub.
        split: The split that is trained and selected on.
        report_split: The split that is reported on; None: a share of `split`.
        image_column: Column of images.
        label_column: Column of classes or of integers from 0 on.
    """

    # Names without an owner are also those of file formats, one of which is pickled.
    dataset: Annotated[str, Field(pattern=r"^\w[\w.-]*/\w[\w.-]*$")] | None = None
    subset: str | None = None
    revision: str | None = None
    split: str = "train"
    report_split: str | None = None
    image_column: str = "image"
    label_column: str = "label"


@DATASETS.register("huggingface")
class HuggingFace(ImageDataset):
    """A data set on the hub, or a folder that `Dataset.save_to_disk` wrote.

    Needs the package `datasets` (`pip install 'netcarve[huggingface]'`). No code of a data set is
    ever run, and images must be in the data set itself, not files that it names.
    """

    settings_type = HuggingFaceSettings
    path_is = "a folder that Dataset.save_to_disk wrote"
    needs_path = False

    def __init__(self, path: Path | None, settings: DatasetSettings) -> None:
        super().__init__(path, settings)
        assert isinstance(settings, HuggingFaceSettings)
        self.wanted = settings

    @classmethod
    def check(cls, name: str, path: Path | None, settings: DatasetSettings) -> None:
        super().check(name, path, settings)
        assert isinstance(settings, HuggingFaceSettings)
        if (path is None) == (settings.dataset is None):
            raise ValueError(
                f"data set {name!r} needs either a path to {cls.path_is}, or settings.dataset, a "
                "name on the hub"
            )

    def load(self) -> Labelled:
        parts, wanted = self._parts(), self.wanted
        names, labels = [], []
        for part in parts:
            found, numbers = self._labels(part)
            names.append(found)
            labels.append(numbers)
        if len(set(names)) > 1:
            raise DataError(f"{self}: its two splits have different classes: {names}")
        columns = [self._images(part) for part in parts]
        first = len(columns[0])

        def decode(number: int) -> NDArray[np.uint8]:
            part, row = (0, number) if number < first else (1, number - first)
            name = f"{row} of split {self._splits[part]!r} of {self}"
            content = columns[part][row][wanted.image_column]
            if content is None or content["bytes"] is None:
                raise DataError(
                    f"image {name} is not in the data set itself; load it with 'datasets', and "
                    "give the path of what save_to_disk, which embeds images, then writes"
                )
            return decode_image(content["bytes"], name, wanted.channels, wanted.size)

        count = sum(map(len, columns))
        images = EncodedImages(decode, count, wanted, lambda: self._digest(parts))
        report = np.arange(first, count) if wanted.report_split is not None else None
        return Labelled(images, np.concatenate(labels), report, names[0])

    def digest(self) -> str:
        return self._digest(self._parts())

    def __str__(self) -> str:
        return str(self.path or self.wanted.dataset)

    @property
    def _splits(self) -> list[str]:
        wanted = self.wanted
        return [s for s in (wanted.split, wanted.report_split) if s is not None]

    def _parts(self) -> list[Any]:
        """The `datasets.Dataset` of each split."""
        library = _library()
        unusable: type[Exception] = library.exceptions.DatasetsError
        wanted = self.wanted
        try:
            if self.path is not None:
                found = library.load_from_disk(str(self.path))
            else:
                found = library.load_dataset(
                    wanted.dataset, wanted.subset, revision=wanted.revision
                )
        except (OSError, ValueError, LookupError, TypeError, RuntimeError, unusable) as error:
            text = " ".join(str(error).split())
            raise DataError(f"cannot load the data set {self}: {text[:300]}") from None
        if not isinstance(found, library.DatasetDict):
            if wanted.report_split is not None:
                raise DataError(
                    f"{self} is one split; it has no report_split {wanted.report_split!r}"
                )
            return [found]
        missing = [s for s in self._splits if s not in found]
        if missing:
            raise DataError(f"{self} has no split {missing[0]!r}; it has: {', '.join(found)}")
        return [found[s] for s in self._splits]

    def _images(self, part: Any) -> Any:
        """The image column alone, with images as they are stored."""
        library, column = _library(), self.wanted.image_column
        self._check_column(part, column)
        if not isinstance(part.features[column], library.Image):
            raise DataError(
                f"column {column!r} of {self} holds {part.features[column]}; allowed: images"
            )
        return part.select_columns([column]).cast_column(column, library.Image(decode=False))

    def _labels(self, part: Any) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """Class names, and labels int64 [n]."""
        column = self.wanted.label_column
        self._check_column(part, column)
        try:
            labels = np.array(list(part[column]))
        except ValueError:  # lists of different lengths
            labels = np.empty((0, 0))
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise DataError(
                f"column {column!r} of {self} holds {part.features[column]}; allowed: classes or "
                "integers, in every row"
            )
        return tuple(getattr(part.features[column], "names", None) or ()), labels.astype(np.int64)

    def _check_column(self, part: Any, column: str) -> None:
        if column not in part.column_names:
            known = ", ".join(part.column_names)
            raise DataError(f"{self} has no column {column!r}; it has: {known}")

    def _digest(self, parts: list[Any]) -> str:
        files = []
        for split, part in zip(self._splits, parts, strict=True):
            paths = [Path(file["filename"]) for file in part.cache_files]
            if not paths:
                raise DataError(f"{self} is held in memory; unset HF_DATASETS_IN_MEMORY_MAX_SIZE")
            files += [(f"{split}/{path.name}", path) for path in paths]
        return files_digest(files)


def _library() -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError(
            "data set 'huggingface' needs the package 'datasets', which is not installed; "
            "install it with: pip install 'netcarve[huggingface]'"
        ) from None
    datasets.disable_progress_bars()
    return datasets
