"""Integer weights of at most 4 bits: two to a byte in a library, widened in registers.

The arithmetic runs on 8 bits (16 without VNNI). A row is what one step of a reduction multiplies;
two neighbouring rows share their bytes, so that a step costs the load of an 8-bit row and one (or,
without VNNI, three) instructions more, for all the pixels of a register tile together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx

from compilers.errors import KernelError
from compilers.intrinsics import IntegerDot, Vpdpbusd, multiply_bits
from compilers.kernels.emitter import Buffer, Emitter, Expr, Index, broadcast, cast, load
from compilers.kernels.lookahead import fetch_part

NIBBLE_BITS = 4
WEIGHT_BITS = (NIBBLE_BITS, 8)
"""Widths in which integer kernels hold their weights; narrower ones are widened to these."""

_WIDENING_REGISTERS = 2
# Bits 0, 1, 2, 3, 3, 3, 3, 3 of a byte: its low half as a signed byte. The first bit of the result
# belongs to the most significant byte. Four bits further it takes the high half.
_LOW_HALF = 0x01_02_04_08_08_08_08_08


def held_bits(stored_bits: int) -> int:
    """The width in which a kernel holds weights that are stored in `stored_bits`."""
    return NIBBLE_BITS if stored_bits <= NIBBLE_BITS else 8


def check_weight_bits(bits: int, input_dtype: str) -> None:
    """Raise `KernelError` unless a kernel with this input can hold such weights."""
    allowed = WEIGHT_BITS if input_dtype == "uint8" else WEIGHT_BITS[1:]
    if bits not in allowed:
        listed = ", ".join(map(str, allowed))
        raise KernelError(f"weight_bits {bits} with a {input_dtype} input; allowed: {listed}")


def pack_nibbles(weight: NDArray[Any]) -> NDArray[np.int8]:
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
    return np.ascontiguousarray(fields[::2] | fields[1::2] << NIBBLE_BITS).view(np.int8)


def held_weight(weight: NDArray[Any], bits: int) -> NDArray[Any]:
    """The constant of a `WeightArgument`: [..., L] as it is, or as nibbles."""
    return pack_nibbles(weight) if bits == NIBBLE_BITS else weight


@dataclass(frozen=True, slots=True)
class Widening:
    """What it takes to have the weights of a register tile in the dot product's element type.

    Attributes:
        registers: vector registers that it takes away from the tile.
        cost: vector instructions that it adds to a load.
    """

    registers: int
    cost: float


def widening(dot: IntegerDot | None, bits: int) -> Widening:
    """Of weights held in `bits`, 8 or 4, for `dot`; float32 weights (None) need none."""
    if bits != NIBBLE_BITS:
        return Widening(0, 0.0)
    return Widening(_WIDENING_REGISTERS, 1.0 if isinstance(dot, Vpdpbusd) else 3.0)


class WeightArgument:
    """The weights [..., L] of a kernel, whatever width they are held in.

    Attributes:
        rows_per_byte: neighbouring rows that a reduction should take in one turn.
    """

    def __init__(
        self, em: Emitter, shape: Sequence[int], dot: IntegerDot | None, bits: int = 8
    ) -> None:
        """Declare the argument.

        Args:
            em: where to emit.
            shape: of the weights; the last axis is at least as long as a vector.
            dot: what multiplies them, or None for float32.
            bits: 8, or 4 for weights packed by `pack_nibbles`.
        """
        self.em = em
        self.dot = dot
        self.shape = tuple(shape)
        self.packed = bits == NIBBLE_BITS
        self.rows_per_byte = 2 if self.packed else 1
        dtype = dot.weight_dtype if dot else "float32"
        if self.packed:
            rows = int(np.prod(self.shape[:-1]))
            shape, dtype = (-(-rows // 2), self.shape[-1]), "int8"
        self.buffer: Buffer = em.argument("weight", shape, dtype)

    def load(self, index: Sequence[Index], lanes: int) -> Expr:
        """`lanes` consecutive weights of the last axis, in the dot product's element type."""
        if not self.packed:
            return self.em.let(load(self.buffer, index, lanes))
        row: Index = 0
        for position, extent in zip(index[:-1], self.shape[:-1], strict=True):
            row = row * extent + position
        row = tirx.const(row, "int32") if isinstance(row, int) else row
        # Bits, not quotients: where a loop takes steps in pairs, the half is known in advance.
        pair, half = row >> 1, row & 1
        return self.em.let(self._half(load(self.buffer, [pair, index[-1]], lanes), half, lanes))

    @property
    def bytes(self) -> int:
        """Size in memory."""
        return int(np.prod(self.buffer.shape)) * np.dtype(self.buffer.dtype).itemsize

    def fetch_part(self, row: Index, rows: int, part: Index, parts: int) -> None:
        """Fetch one of the parts of some rows ahead of their use, see `lookahead`."""
        held = self.shape[-1] // self.rows_per_byte
        fetch_part(self.em, self.buffer, row * held, rows * held, part, parts)

    def turns(self, steps: int, body: Callable[[Index], None]) -> None:
        """Run `body(step)` for every step; rows that share their bytes come in one turn."""
        length = self.rows_per_byte

        def turn(j: Index) -> None:
            for i in range(length):
                body(j * length + i)

        self.em.loop(steps // length, turn)
        for step in range(steps // length * length, steps):
            body(step)

    def _half(self, both: Expr, half: Expr, lanes: int) -> Expr:
        """The signed low (half 0) or high (half 1) four bits of each byte."""
        if isinstance(self.dot, Vpdpbusd):
            shift = tirx.Cast("int64", half * NIBBLE_BITS)
            matrix = tirx.const(_LOW_HALF, "int64") << shift
            return multiply_bits(both, self.em.let(matrix), lanes)
        assert self.dot is not None
        dtype = self.dot.weight_dtype
        width = 8 * np.dtype(dtype).itemsize
        left = tirx.Cast(dtype, width - NIBBLE_BITS - half * NIBBLE_BITS)
        wide = cast(both, dtype, lanes) << broadcast(left, lanes)
        return wide >> broadcast(tirx.const(width - NIBBLE_BITS, dtype), lanes)
