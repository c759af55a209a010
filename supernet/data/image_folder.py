"""A folder of images, one folder for each class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from supernet.data.content import files_digest
from supernet.data.dataset import DATASETS, DatasetSettings, ImageDataset, Labelled
from supernet.data.encoded import FORMATS, EncodedImages, EncodedSettings, decode_image
from supernet.errors import DataError

_SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
_SPLIT_FOLDERS = {"train", "val", "test"}


class ImageFolderSettings(EncodedSettings):
    """Settings of `image_folder`."""


@DATASETS.register("image_folder")
class ImageFolder(ImageDataset):
    """Images `PATH/CLASS/FILE`, or `PATH/train/CLASS/FILE` with a report split `PATH/val`.

    Labels are the places of the class folders' names in their sorted order. Other files are passed
    over, as is `PATH/test`, and so is everything whose name begins with a dot. Symbolic links are
    refused, so that nothing outside the folder is read.
    """

    settings_type = ImageFolderSettings
    path_is = "a folder with a folder of images for each class"

    def __init__(self, path: Path | None, settings: DatasetSettings) -> None:
        super().__init__(path, settings)
        assert path is not None
        assert isinstance(settings, ImageFolderSettings)
        self.root, self.images = path, settings

    def load(self) -> Labelled:
        names, files, labels, report = self._found()

        def decode(number: int) -> NDArray[np.uint8]:
            file = files[number]
            return decode_image(file, str(file), self.images.channels, self.images.size)

        encoded = EncodedImages(decode, len(files), self.images, lambda: self._digest(files))
        return Labelled(encoded, np.array(labels, np.int64), report, names)

    def digest(self) -> str:
        return self._digest(self._found()[1])

    def _digest(self, files: Sequence[Path]) -> str:
        return files_digest([(file.relative_to(self.root).as_posix(), file) for file in files])

    def _found(
        self,
    ) -> tuple[tuple[str, ...], list[Path], list[int], NDArray[np.int64] | None]:
        """Class names, files, labels, and the numbers of the files in `val`, if there is one."""
        folders = {folder.name: folder for folder in _folders(self.root)}
        is_split = "train" in folders and bool(_folders(folders["train"]))
        if is_split and (others := sorted(folders.keys() - _SPLIT_FOLDERS)):
            raise DataError(
                f"{self.root} has the folder {others[0]!r} beside 'train', which holds class "
                "folders; allowed beside it: 'val', the report split, and 'test', which is not read"
            )
        names, files, labels = _classes(folders["train"] if is_split else self.root)
        if not is_split or "val" not in folders:
            return names, files, labels, None
        in_val, more, found = _classes(folders["val"])
        unknown = sorted(set(in_val) - set(names))
        if unknown:
            raise DataError(
                f"{folders['val']} has the class {unknown[0]!r}, which {folders['train']} does not "
                f"have; it has {len(names)}: {', '.join(names[:12])}"
            )
        labels += [names.index(in_val[label]) for label in found]
        return names, files + more, labels, np.arange(len(files), len(files) + len(more))


def _classes(root: Path) -> tuple[tuple[str, ...], list[Path], list[int]]:
    """Sorted class names, files, and the place of each file's class."""
    folders = _folders(root)
    if not folders:
        raise DataError(f"{root} has no class folders; images are expected as {root}/CLASS/FILE")
    files: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        inner, members = _listed(folder)
        if inner:
            raise DataError(f"class folder {folder} holds the folder {inner[0].name!r}, not images")
        images = [file for file in members if file.suffix.lower() in _SUFFIXES]
        if not images:
            raise DataError(
                f"class folder {folder} has no images; allowed: {', '.join(sorted(_SUFFIXES))}"
            )
        files += images
        labels += [label] * len(images)
    return tuple(folder.name for folder in folders), files, labels


def _folders(root: Path) -> list[Path]:
    return _listed(root)[0]


def _listed(folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders and files of a folder, each sorted by name."""
    folders: list[Path] = []
    files: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink():
                    raise DataError(
                        f"{entry.path} is a symbolic link, which is not followed; put the folder "
                        "or file itself there"
                    )
                (folders if entry.is_dir() else files).append(Path(entry.path))
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from None
    return sorted(folders), sorted(files)
