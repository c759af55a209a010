"""ImageDataset: where labelled images come from, before they are split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from spaces.registry import Registry

if TYPE_CHECKING:
    from supernet.data.encoded import EncodedImages


class DatasetSettings(BaseModel):
    """Base of a data set's own settings: validated, immutable, unknown keys refused.

    Attributes:
        resources: Names of the settings that do not decide what the images are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    resources: ClassVar[frozenset[str]] = frozenset()

    def decisive(self) -> dict[str, Any]:
        """The settings that decide the images, as JSON."""
        return self.model_dump(mode="json", exclude=set(self.resources))


@dataclass(frozen=True, slots=True)
class Labelled:
    """All images of a data set with their labels.

    Attributes:
        images: float32 [n, c, h, w] in 0..1, or encoded images.
        labels: int64 [n], from 0 on.
        report: Row numbers of the report split that the data set has itself; None: it has none,
            and a share of the rows becomes one.
        names: Names of the classes; empty when they have none.
    """

    images: NDArray[np.float32] | EncodedImages
    labels: NDArray[np.int64]
    report: NDArray[np.int64] | None = None
    names: tuple[str, ...] = ()


class ImageDataset(ABC):
    """A kind of data set. Third parties add one by an entry point in `netcarve.datasets`.

    A job makes it from its `data` section: `load` once in every process that needs images, `digest`
    wherever it is asked whether the data has changed; both may be slow.

    Attributes:
        settings_type: Its own settings.
        path_is: What its path has to be; empty when it has no path.
        needs_path: Whether the path must be given; otherwise the settings may say something else.

    Args:
        path: As the job gives it, absolute.
        settings: An instance of `settings_type`.
    """

    settings_type: ClassVar[type[DatasetSettings]] = DatasetSettings
    path_is: ClassVar[str] = ""
    needs_path: ClassVar[bool] = True

    def __init__(self, path: Path | None, settings: DatasetSettings) -> None:
        self.path, self.settings = path, settings

    @classmethod
    def check(cls, name: str, path: Path | None, settings: DatasetSettings) -> None:
        """Refuse a path and settings that do not go together; nothing is read.

        Args:
            name: What the job calls the data set.
            path: As for the data set.
            settings: Likewise.

        Raises:
            ValueError: They do not go together.
        """
        if not isinstance(settings, cls.settings_type):
            raise ValueError(f"settings {settings} are not those of data set {name!r}")
        if cls.path_is and cls.needs_path and path is None:
            raise ValueError(f"data set {name!r} needs a path to {cls.path_is}")
        if not cls.path_is and path is not None:
            raise ValueError(
                f"data set {name!r} has no path, got '{path}'; for a file of your own write "
                "'name: npz', for a folder of images 'name: image_folder'"
            )

    @abstractmethod
    def load(self) -> Labelled:
        """Read the data set; equal for equal content.

        Raises:
            DataError: It is missing, malformed, or holds something that is not allowed.
        """

    @abstractmethod
    def digest(self) -> str:
        """Hash of the content that `load` reads, wherever it lies; "" when it never changes.

        Raises:
            DataError: It cannot be read.
        """


DATASETS: Registry[type[ImageDataset]] = Registry("data set", "netcarve.datasets")
