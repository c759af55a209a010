"""Where the elements of a tensor lie inside a stored tensor: strided views, as in numpy.

A numpy view has one stride per axis, so that a reshape may need a copy (`flatten` of a map that is
stored channels-last). Here an axis is a mixed-radix number with one stride per digit: every
reshape that splits at divisors is a view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Factor = tuple[int, int]
"""Size and stride (in elements) of one digit of an axis."""


@dataclass(frozen=True, slots=True)
class View:
    """A tensor whose elements are elements of the stored tensor `base`.

    Attributes:
        base: Name of the stored tensor, row-major.
        axes: For each axis its digits, the most significant first; none for an axis of size 1.
        offset: Place of the first element in `base`, in elements.
        rotation: Name of a rotary embedding that a reader has to apply; None for plain values.
    """

    base: str
    axes: tuple[tuple[Factor, ...], ...]
    offset: int = 0
    rotation: str | None = None

    @classmethod
    def of(cls, base: str, shape: Sequence[int]) -> View:
        """The whole of a row-major tensor of `shape`."""
        strides = [prod(shape[i + 1 :]) for i in range(len(shape))]
        return cls(base, tuple(map(lambda s, t: merged([(s, t)]), shape, strides)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return tuple(prod(size for size, _ in axis) for axis in self.axes)

    def factors(self, axes: Sequence[int]) -> tuple[Factor, ...]:
        """The digits of one axis made of several, in this order."""
        return merged([factor for axis in axes for factor in self.axes[axis]])

    def permute(self, axes: Sequence[int]) -> View:
        """Axes in another order."""
        return replace(self, axes=tuple(self.axes[axis] for axis in axes))

    def reshape(self, shape: Sequence[int]) -> View | None:
        """The same elements in the same order; None when a new axis would cut a digit unevenly."""
        rest = list(self.factors(range(len(self.axes))))
        axes: list[tuple[Factor, ...]] = []
        for size in shape:
            axis: list[Factor] = []
            missing = size
            while missing > 1:
                count, stride = rest.pop(0)
                if missing % count == 0:
                    axis.append((count, stride))
                    missing //= count
                elif count % missing == 0:
                    inner = count // missing
                    axis.append((missing, stride * inner))
                    rest.insert(0, (inner, stride))
                    missing = 1
                else:
                    return None
            axes.append(merged(axis))
        return replace(self, axes=tuple(axes))

    def slice(self, axis: int, start: int, length: int) -> View | None:
        """`length` elements of one axis from `start`; None when they cut a digit unevenly."""
        digits, offset = self.axes[axis], self.offset
        for place, (_, stride) in enumerate(digits):
            inner = prod(size for size, _ in digits[place + 1 :])
            first, start = divmod(start, inner)
            offset += first * stride
            if start == 0 and length % inner == 0:
                kept = [(length // inner, stride), *digits[place + 1 :]]
                return self._with(axis, kept, offset)
            if start + length > inner:
                return None
        return self._with(axis, [], offset)

    def _with(self, axis: int, digits: Sequence[Factor], offset: int) -> View:
        axes = (*self.axes[:axis], merged(digits), *self.axes[axis + 1 :])
        return replace(self, axes=axes, offset=offset)

    def expand(self, shape: Sequence[int]) -> View:
        """Axes of size 1, and missing first axes, repeated without moving in memory."""
        new: tuple[tuple[Factor, ...], ...] = ((),) * (len(shape) - len(self.axes))
        pairs = zip((*new, *self.axes), shape, strict=True)
        axes = tuple(axis if axis or size == 1 else ((size, 0),) for axis, size in pairs)
        return replace(self, axes=axes)

    def storage_order(self) -> tuple[list[int], list[int]]:
        """Sizes of all digits, axis by axis, and their order from the widest stride to the next."""
        flat = [factor for axis in self.axes for factor in axis]
        order = sorted(range(len(flat)), key=lambda i: -flat[i][1])
        return [size for size, _ in flat], order

    def is_whole(self, size: int) -> bool:
        """Whether every one of the `size` elements of the base occurs exactly once."""
        flat = [factor for axis in self.axes for factor in axis]
        flat.sort(key=lambda factor: -factor[1])
        dense = merged(flat)
        return self.offset == 0 and dense == (((size, 1),) if size > 1 else ())

    def read(self, stored: NDArray[Any]) -> NDArray[Any]:
        """The tensor, given the stored one."""
        flat = [factor for axis in self.axes for factor in axis]
        start = stored.reshape(-1)[self.offset :]
        strides = [stride * stored.itemsize for _, stride in flat]
        sizes = [size for size, _ in flat]
        return np.lib.stride_tricks.as_strided(start, sizes, strides).reshape(self.shape)


def merged(factors: Sequence[Factor]) -> tuple[Factor, ...]:
    """The same digits with those of size 1 left out and neighbours joined where they can be."""
    found: list[Factor] = []
    for size, stride in factors:
        if size == 1:
            continue
        if found and found[-1][1] == size * stride:
            found[-1] = (found[-1][0] * size, stride)
        else:
            found.append((size, stride))
    return tuple(found)
