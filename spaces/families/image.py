"""What the families of image classifiers share: settings, maps' sizes, what a layer's bits need."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from spaces.families.base import Family, Values
from spaces.families.quantisation import FORM_READS, QuantSettings, layer_dimensions

CHANNEL_MULTIPLE = 8


def _channels(values: tuple[int, ...]) -> tuple[int, ...]:
    bad = [v for v in values if v <= 0 or v % CHANNEL_MULTIPLE]
    if bad:
        raise ValueError(f"channels {bad} are not positive multiples of {CHANNEL_MULTIPLE}")
    return values


def _kernels(values: tuple[int, ...]) -> tuple[int, ...]:
    bad = [v for v in values if v not in (3, 5, 7)]
    if bad:
        raise ValueError(f"kernels {bad}; allowed: 3, 5, 7")
    return values


Channels = Annotated[tuple[int, ...], Field(min_length=1), AfterValidator(_channels)]
Positive = Annotated[int, Field(gt=0)]
Counts = Annotated[tuple[Positive, ...], Field(min_length=1)]
Kernels = Annotated[tuple[int, ...], Field(min_length=1), AfterValidator(_kernels)]
Stride = Annotated[int, Field(ge=1, le=2)]
Resolutions = Annotated[tuple[Annotated[int, Field(ge=8)], ...], Field(min_length=1)]


class ImageSettings(QuantSettings):
    """Base of the settings of a family of image classifiers.

    Attributes:
        input_channels: Channels of an image.
        classes: Number of classes.
        resolution: Heights and widths of an image, in pixels.
    """

    input_channels: Positive
    classes: Annotated[int, Field(ge=2)]
    resolution: Resolutions


class ImageFamily(Family):
    """Base of a family whose networks classify images; its dimension `resolution` is their side."""

    settings: ImageSettings

    @property
    def input_channels(self) -> int:
        return self.settings.input_channels

    @property
    def classes(self) -> int:
        return self.settings.classes

    def _precision_reads(self, *sites: str) -> tuple[str, ...]:
        """The dimensions that decide the precision of some layers."""
        bits = [d.name for site in sites for d in layer_dimensions(self.settings, site)]
        return (*bits, *FORM_READS)


def halved(size: int, stride: int) -> int:
    """Output size of a window of odd kernel k, padding k // 2."""
    return (size - 1) // stride + 1


def map_size(values: Values, strides: tuple[int, ...]) -> int:
    """Height and width of the map after windows of these strides."""
    size = int(values["resolution"])
    for stride in strides:
        size = halved(size, stride)
    return size
