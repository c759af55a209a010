"""The `data` section of a job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)

from spaces.errors import UnknownNameError
from spaces.settings import explain
from supernet.data.dataset import DATASETS, DatasetSettings, ImageDataset


def _known(name: str) -> str:
    if name not in DATASETS.names():
        raise ValueError(str(UnknownNameError(DATASETS.kind, name, DATASETS.names())))
    return name


_DEFAULT = "digits"
Deviation = Annotated[float, Field(gt=0)]


class DataConfig(BaseModel):
    """Which data, and how it is split.

    Attributes:
        name: Kind of data set, a name in `DATASETS`.
        path: Where it lies, for those that have a path. Made absolute.
        settings: The kind's own settings.
        seed: Decides the stratified split; below 2**31.
        selection_share: Share of the images in the selection split, or of those that are not in
            the report split when the data set has one itself.
        report_share: Share of the images in the report split; without effect when the data set has
            one itself.
        mean: Subtracted from pixels in 0..1, one value or one for each channel.
        std: What they are divided by afterwards; given with `mean` or not at all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Annotated[str, AfterValidator(_known)] = _DEFAULT
    path: Path | None = None
    settings: SerializeAsAny[DatasetSettings] = DatasetSettings()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    selection_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.2
    report_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.2
    mean: Annotated[tuple[float, ...], Field(min_length=1)] | None = None
    std: Annotated[tuple[Deviation, ...], Field(min_length=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _settings_of_the_kind(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or isinstance(data.get("settings"), DatasetSettings):
            return data
        name, given = data.get("name", _DEFAULT), data.get("settings", {})
        if name not in DATASETS.names():
            return data
        kind = DATASETS.get(name).settings_type
        try:
            return {**data, "settings": kind.model_validate(given)}
        except ValidationError as error:
            raise ValueError(f"settings of data set {name!r}: {explain(error, kind)}") from None

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        # A stored job is continued from other working folders, and by other processes.
        return None if path is None else path.absolute()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("'mean' and 'std' belong together: give both or neither")
        DATASETS.get(self.name).check(self.name, self.path, self.settings)
        return self

    def dataset(self) -> ImageDataset:
        """The data set; nothing is read yet."""
        return DATASETS.get(self.name)(self.path, self.settings)

    def identity(self) -> dict[str, Any]:
        """What decides the three splits, as JSON, with the content's hash in place of the path.

        Raises:
            DataError: The data cannot be read.
        """
        found = self.model_dump(mode="json")
        return found | {
            "settings": self.settings.decisive(),
            "path": self.dataset().digest() or None,
        }
