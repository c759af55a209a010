"""Images that lie encoded in files: decoded once when they fit in memory, else at every use."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydantic import Field
from torch import Tensor

from spaces.files import sha256_bytes
from supernet.data.dataset import DatasetSettings
from supernet.data.normalisation import Normalisation
from supernet.errors import DataError

FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "PPM": (".ppm", ".pgm"),
}
"""Formats that are read -> suffixes of their files."""

_MODES = {1: "L", 3: "RGB"}
_REPORT_EVERY = 100
_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


class EncodedSettings(DatasetSettings):
    """What encoded images become.

    Attributes:
        size: Height and width, pixels: the middle square is cut out and scaled to it.
        channels: 1 (grey) or 3 (RGB).
        cache_mb: Images that take at most so many MiB are decoded once and kept, a byte a pixel
            and channel; more of them are decoded whenever they are used. For each process.
        decode_threads: Threads that decode.
    """

    resources: ClassVar[frozenset[str]] = frozenset({"cache_mb", "decode_threads"})

    size: Annotated[int, Field(ge=4, le=4096)]
    channels: Literal[1, 3] = 3
    cache_mb: Annotated[int, Field(ge=0)] = 1024
    decode_threads: Annotated[int, Field(ge=1)] = 1


def decode_image(source: Path | bytes, name: str, channels: int, size: int) -> NDArray[np.uint8]:
    """Decode one image.

    Args:
        source: A file, or its content.
        name: What errors call it.
        channels: 1 or 3.
        size: Height and width of the result.

    Returns:
        uint8 [channels, size, size]: upright as its EXIF orientation says, the middle square of
        it, scaled (bilinear, antialiased).

    Raises:
        DataError: It is not an image of `FORMATS`, is damaged, too large, or has more than 8 bits
            a channel.
    """
    # Pillow raises nearly anything on damaged files.
    try:
        opened = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(opened, formats=tuple(FORMATS)) as image:
            if image.mode not in _EIGHT_BITS:
                raise DataError(
                    f"image {name} has pixels of mode {image.mode}; "
                    f"allowed: 8 bits a channel ({', '.join(_EIGHT_BITS)})"
                )
            # JPEG decodes at a fraction of its size several times faster.
            image.draft(_MODES[channels], (size, size))
            upright = ImageOps.exif_transpose(image).convert(_MODES[channels])
            pixels = np.asarray(_squared(upright, size))  # [s, s] or [s, s, 3]
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"cannot read image {name}: {error or type(error).__name__}") from None
    return pixels.reshape(size, size, channels).transpose(2, 0, 1)


def _squared(image: Image.Image, size: int) -> Image.Image:
    """The middle square, scaled to size x size pixels."""
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    # Not the whole image: one of a single row would become as many rows of that length.
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


class EncodedImages:
    """Encoded images of one data set; nothing is decoded before `keep` or `take`.

    Args:
        decode: Number of an image -> uint8 [c, size, size]; raises DataError. Called from several
            threads when the settings say so.
        count: How many there are.
        settings: What they become, and what may be kept.
        digest: Gives the hash of their content; called when it is asked for.
    """

    def __init__(
        self,
        decode: Callable[[int], NDArray[np.uint8]],
        count: int,
        settings: EncodedSettings,
        digest: Callable[[], str],
    ) -> None:
        self.shape = (count, settings.channels, settings.size, settings.size)
        self._decode, self._digest = decode, digest
        self._settings = settings
        self._cache: NDArray[np.uint8] | None = None

    def keep(self, progress: Callable[[int, int], None]) -> None:
        """Decode all of them, once for all, when they fit in `cache_mb`.

        Args:
            progress: Called with (images done, images) every now and then.

        Raises:
            DataError: One of them cannot be read.
        """
        count = self.shape[0]
        if np.prod(self.shape, dtype=np.int64) > self._settings.cache_mb * 2**20:
            return
        found = np.empty(self.shape, np.uint8)
        for place, pixels in enumerate(self._decoded(range(count))):
            found[place] = pixels
            if place % _REPORT_EVERY == 0 or place == count - 1:
                progress(place + 1, count)
        self._cache = found

    @cached_property
    def digest(self) -> str:
        """Hash of the files' content and of what they become."""
        return sha256_bytes(f"{self._digest()} {self.shape}".encode())

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """uint8 [rows, c, h, w]."""
        if self._cache is not None:
            return self._cache[rows]
        found = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for place, pixels in enumerate(self._decoded(rows.tolist())):
            found[place] = pixels
        return found

    def _decoded(self, rows: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        if self._settings.decode_threads == 1:
            yield from map(self._decode, rows)
            return
        with ThreadPoolExecutor(self._settings.decode_threads) as pool:
            yield from pool.map(self._decode, rows)


class EncodedRows:
    """Some images of a data set, as float32: what `ImageSet.images` is when it is no tensor.

    `images[rows]`, with a slice or with row numbers int64 [m], is a float32 tensor [m, c, h, w];
    DataError when an image cannot be read.

    Args:
        source: The images.
        rows: Which of them, in order.
        normalisation: Applied to pixels in 0..1.
    """

    def __init__(
        self, source: EncodedImages, rows: NDArray[np.int64], normalisation: Normalisation
    ) -> None:
        self._source, self._rows, self._normalisation = source, rows, normalisation

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, c, h, w)."""
        return (len(self._rows), *self._source.shape[1:])

    @property
    def digest(self) -> str:
        """Hash of the images' content, their order and normalisation."""
        chosen = sha256_bytes(self._rows.tobytes())
        return sha256_bytes(f"{self._source.digest} {chosen} {self._normalisation}".encode())

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        chosen = self._rows[rows if isinstance(rows, slice) else rows.numpy()]
        pixels = torch.from_numpy(self._source.take(chosen))
        return self._normalisation.apply(pixels.to(torch.float32) / 255)
