"""Weights and per-channel vectors in the order in which the templates read them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compilers.errors import KernelError
from compilers.intrinsics import IntegerDot


def checked(
    what: str, value: NDArray[Any] | None, shape: tuple[int, ...], dtype: type[np.generic]
) -> NDArray[Any]:
    """`value`, if it is an array of this shape and element type.

    Raises:
        KernelError: it is missing or differs.
    """
    if value is None:
        raise KernelError(f"the kernel needs {what} of shape {list(shape)}")
    if value.shape != shape or value.dtype != dtype:
        raise KernelError(
            f"{what} is {value.dtype} {list(value.shape)}; "
            f"the kernel takes {np.dtype(dtype).name} {list(shape)}"
        )
    return value


def pad_channels(vector: NDArray[Any], lanes: int) -> NDArray[Any]:
    """[C] -> [ceil(C / lanes) * lanes], zeros behind."""
    return np.pad(vector, (0, -len(vector) % lanes))


def pack_matrix(weight: NDArray[Any], lanes: int, group: int = 1) -> NDArray[Any]:
    """[N, K] -> [ceil(N / lanes), K / group, lanes * group].

    One row of the last axis is what one step of the reduction reads: `lanes` output channels,
    each with `group` consecutive input channels.
    """
    n, k = weight.shape
    padded = np.pad(weight, ((0, -n % lanes), (0, 0)))
    blocks = padded.reshape(-1, lanes, k // group, group).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(blocks.reshape(-1, k // group, lanes * group))


def pack_integer_matrix(weight: NDArray[np.int8], lanes: int, dot: IntegerDot) -> NDArray[Any]:
    """`pack_matrix` for an integer dot product, in its element type."""
    return pack_matrix(weight.astype(dot.weight_dtype), lanes, dot.group)


def integer_bias(
    weight: NDArray[np.int8], bias: NDArray[np.int32], zero_point: int
) -> NDArray[np.int32]:
    """bias - zero_point * sum of each output channel's weights: the accumulator's start.

    With it, sum(q * w) + start equals sum((q - zero_point) * w) + bias, provided that pixels
    outside the image read as the zero point.

    Raises:
        KernelError: the result leaves 32 bits.
    """
    total = weight.reshape(len(weight), -1).astype(np.int64).sum(axis=1)
    start = bias.astype(np.int64) - zero_point * total
    if np.abs(start).max(initial=0) > np.iinfo(np.int32).max:
        raise KernelError(f"an integer bias of {int(np.abs(start).max())} leaves 32 bits")
    return start.astype(np.int32)
