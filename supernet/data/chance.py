"""Random numbers for the images of a batch, of which some rows are on other workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Size: TypeAlias = int | tuple[int, ...]
"""Shape of random numbers; the last axis is that of the images."""


class RowsOfBatch:
    """The random numbers of some rows of a batch: a row's are the same whoever has the others.

    Has the methods of np.random.Generator that random changes of images call.

    Args:
        rng: All randomness comes from it.
        count: Images of the whole batch.
        rows: Those that are here.
    """

    def __init__(self, rng: np.random.Generator, count: int, rows: slice) -> None:
        self._rng, self._count, self._rows = rng, count, rows

    def uniform(self, low: float, high: float, size: Size) -> NDArray[np.float64]:
        """Uniform in [low, high)."""
        return self._rng.uniform(low, high, self._whole(size))[..., self._rows]

    def random(self, size: Size) -> NDArray[np.float64]:
        """Uniform in [0, 1)."""
        return self._rng.random(self._whole(size))[..., self._rows]

    def integers(self, low: int, high: int, size: Size) -> NDArray[np.int64]:
        """Uniform in low to high - 1."""
        return self._rng.integers(low, high, self._whole(size))[..., self._rows]

    def choice(self, values: Sequence[float], size: Size) -> NDArray[np.float64]:
        """Any of the values, all as probable."""
        return self._rng.choice(np.asarray(values), self._whole(size))[..., self._rows]

    def _whole(self, size: Size) -> tuple[int, ...]:
        return (*(size[:-1] if isinstance(size, tuple) else ()), self._count)


Chance: TypeAlias = np.random.Generator | RowsOfBatch
"""Where random changes of images take their randomness from."""
