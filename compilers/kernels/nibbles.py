"""Integer weights of at most 4 bits: two to a byte in a library, widened once per call.

The arithmetic runs on 8 bits (or 16, without VNNI), so the weights pass through a buffer in which
they lie exactly as 8-bit weights would; it is written and read in the caches nearest to the core.
Each weight serves as many multiplications as there are pixels, which hides the widening.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compilers.errors import KernelError
from compilers.kernels.emitter import Buffer, Emitter, Expr, Index, cast, load, reinterpret

NIBBLE_BITS = 4
WEIGHT_BITS = (NIBBLE_BITS, 8)
"""Widths in which integer kernels hold their weights; narrower ones are widened to these."""


def held_bits(stored_bits: int) -> int:
    """The width in which a kernel holds weights that are stored in `stored_bits`."""
    return NIBBLE_BITS if stored_bits <= NIBBLE_BITS else 8


def check_weight_bits(bits: int, integer: bool) -> None:
    """Raise `KernelError` unless an integer kernel (or a float one: 8) can hold such weights."""
    if bits not in WEIGHT_BITS or (bits != 8 and not integer):
        what = "an integer" if integer else "a float32"
        allowed = ", ".join(map(str, WEIGHT_BITS)) if integer else "8"
        raise KernelError(f"weights of {bits} bits in {what} kernel; allowed: {allowed}")


def pack_nibbles(weight: NDArray[Any]) -> NDArray[np.uint8]:
    """Integers [..., L] -> [ceil(R / 2), L], R the product of the leading axes.

    Byte [j, i] holds element i of row 2j in its low half and of row 2j + 1 in its high half.

    Raises:
        KernelError: an integer does not fit 4 bits.
    """
    rows = weight.reshape(-1, weight.shape[-1])
    if rows.size and not -8 <= rows.min() <= rows.max() <= 7:
        raise KernelError(
            f"weights from {rows.min()} to {rows.max()} do not fit {NIBBLE_BITS} bits"
        )
    fields = np.pad(rows, ((0, len(rows) % 2), (0, 0))).astype(np.uint8) & 15
    return np.ascontiguousarray(fields[::2] | fields[1::2] << NIBBLE_BITS)


def packed_weight(weight: NDArray[Any], bits: int) -> NDArray[Any]:
    """The constant of `weight_argument`: [..., L] as it is, or as nibbles."""
    return pack_nibbles(weight) if bits == NIBBLE_BITS else weight


class WeightArgument:
    """A kernel's integer weights: the argument itself, or the buffer that it is widened into.

    Attributes:
        buffer: `shape` elements of `dtype`, once `widen` was emitted.
    """

    def __init__(self, em: Emitter, shape: Sequence[int], dtype: str, bits: int) -> None:
        """Declare the argument.

        Args:
            em: where to emit.
            shape: [..., L] of the widened weights; L is a multiple of 8.
            dtype: of the widened weights, `int8` or `int16`.
            bits: 4, or 8 for weights that need no widening.
        """
        self.em = em
        self.shape = tuple(shape)
        self.dtype = dtype
        self.nibbles: Buffer | None = None
        if bits == NIBBLE_BITS:
            packed = (-(-prod(shape[:-1]) // 2), shape[-1])
            self.nibbles = em.argument("weight", packed, "uint8")
        else:
            self.buffer = em.argument("weight", shape, dtype)

    def widen(self, lanes: int) -> None:
        """Emit the widening, outside all loops, `lanes` bytes at a time."""
        if self.nibbles is None:
            return
        em, (*leading, length) = self.em, self.shape
        rows = prod(leading)
        self.buffer = em.scratch(self.shape, self.dtype)

        def pair(j: Index, halves: Sequence[int]) -> None:
            def piece(first: Index, width: int) -> None:
                both = em.let(reinterpret(load(self.nibbles, [j, first], width), "int8", width))
                for half in halves:
                    value = cast(_nibble(both, half, width), self.dtype, width)
                    em.store(self.buffer, [*_place(2 * j + half, leading), first], value, width)

            em.pieces(length, lanes, piece)

        em.loop(rows // 2, lambda j: pair(j, (0, 1)))
        if rows % 2:
            pair(rows // 2, (0,))


def _nibble(both: Expr, half: int, lanes: int) -> Expr:
    """The signed low (0) or high (1) half of each byte."""
    from tvm import tirx

    four = tirx.Broadcast(tirx.const(NIBBLE_BITS, "int8"), lanes)
    return (both if half else both << four) >> four


def _place(row: Index, leading: Sequence[int]) -> list[Index]:
    """The indices of a flat row number along the leading axes."""
    from tvm import tirx

    places: list[Index] = []
    for extent in reversed(leading[1:]):
        places.append(tirx.truncmod(row, extent))
        row = tirx.truncdiv(row, extent)
    return [row, *reversed(places)]
