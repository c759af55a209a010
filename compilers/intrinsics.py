"""The few vector operations that TIR does not express: integer dot products and rounding.

LLVM 22 (inside TVM 0.27) declares the byte operands of vpdpbusd as byte vectors; TVM's own
`dot_16x4_vnni` intrinsic still passes 32-bit vectors and does not compile.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from tvm import tirx

from compilers.targets import Isa


def _intrinsic(result: str, name: str, *arguments: Any) -> Any:
    return tirx.call_llvm_pure_intrin(result, name, *arguments)


_LARGE = 2.0**30


def round_to_int(value: Any, lanes: int) -> Any:
    """float32 -> int32, half to even; huge values and infinities stay far beyond any uint8.

    vcvtps2dq turns everything beyond int32 into INT32_MIN, which is right for negative values.
    """
    limit = tirx.const(_LARGE, "float32")
    if lanes == 1:
        return _intrinsic("int32", "llvm.lrint", tirx.min(value, limit))
    bounded = tirx.min(value, tirx.Broadcast(limit, lanes))
    return _intrinsic(f"int32x{lanes}", "llvm.lrint", bounded)


def fused_multiply_add(a: Any, b: Any, c: Any, lanes: int) -> Any:
    """float32 `a * b + c`, rounded once."""
    return _intrinsic(f"float32x{lanes}" if lanes > 1 else "float32", "llvm.fma", a, b, c)


def square_root(value: Any, lanes: int) -> Any:
    """float32 square root, correctly rounded."""
    return _intrinsic(f"float32x{lanes}" if lanes > 1 else "float32", "llvm.sqrt", value)


_PACKS = {
    16: ("llvm.x86.avx512.packssdw.512", "llvm.x86.avx512.packuswb.512"),
    8: ("llvm.x86.avx2.packssdw", "llvm.x86.avx2.packuswb"),
}


def pack_to_uint8(vectors: Sequence[Any], zero_point: Any, lanes: int, *, relu: bool) -> Any:
    """clamp(vector + zero_point, 0, 255) of four int32 vectors, one after the other.

    Half the instructions of four single conversions. The packs work inside 128-bit pieces, so
    that one permutation of 32-bit groups must restore the order.

    Args:
        vectors: four int32 vectors of `lanes`.
        zero_point: int32 scalar in 0..255.
        lanes: 16 (AVX-512) or 8 (AVX2).
        relu: clamp at the zero point instead of at 0.
    """
    words, bytes_ = _PACKS[lanes]
    short = f"int16x{2 * lanes}"
    zero = tirx.Broadcast(tirx.Cast("int16", zero_point), 2 * lanes)

    def pair(a: Any, b: Any) -> Any:
        packed = _intrinsic(short, words, a, b)
        if relu:
            packed = tirx.max(packed, tirx.Broadcast(tirx.const(0, "int16"), 2 * lanes))
        return _intrinsic(short, "llvm.sadd.sat", packed, zero)

    a, b, c, d = vectors
    packed = _intrinsic(f"int8x{4 * lanes}", bytes_, pair(a, b), pair(c, d))
    groups = tirx.reinterpret(f"int32x{lanes}", packed)
    order = [4 * piece + vector for vector in range(4) for piece in range(lanes // 4)]
    return tirx.reinterpret(f"uint8x{4 * lanes}", tirx.Shuffle([groups], order))


_PERMUTED_PIXELS = 4


def interleave_pixels(pixels: Any, lanes: int) -> Any:
    """uint8 [4 pixels, lanes channels] -> int32 [lanes], the four pixels of a channel together.

    AVX-512 VBMI permutes the 64 bytes in one instruction.
    """
    order = [p * lanes + c for c in range(lanes) for p in range(_PERMUTED_PIXELS)]
    return tirx.reinterpret(f"int32x{lanes}", tirx.Shuffle([pixels], order))


class IntegerDot(ABC):
    """Exact sums of u8 x s8 products, several per 32-bit lane.

    Activations reach the instruction as `group` consecutive channels of one pixel in one int32,
    weights as `group` consecutive channels of every lane's output channel.

    Attributes:
        group: reduction steps (input channels) per instruction and lane.
        activation_dtype: element type in which activations must lie in memory.
        weight_dtype: element type of the packed weights.
    """

    group: ClassVar[int]
    activation_dtype: ClassVar[str]
    weight_dtype: ClassVar[str]

    @abstractmethod
    def accumulate(self, accumulator: Any, activations: Any, weights: Any, lanes: int) -> Any:
        """`accumulator[i] + sum_g activations[i, g] * weights[i, g]`, all exact.

        Args:
            accumulator: int32 vector of `lanes`.
            activations: int32 vector of `lanes`, each the bits of `group` activations.
            weights: vector of `lanes * group` weights.
            lanes: output channels.
        """


class Vpdpbusd(IntegerDot):
    """AVX-512 VNNI: four u8 x s8 products added to a 32-bit lane, without saturation."""

    group = 4
    activation_dtype = "uint8"
    weight_dtype = "int8"

    def accumulate(self, accumulator: Any, activations: Any, weights: Any, lanes: int) -> Any:
        """See `IntegerDot.accumulate`."""
        return _intrinsic(
            f"int32x{lanes}",
            f"llvm.x86.avx512.vpdpbusd.{32 * lanes}",
            accumulator,
            tirx.reinterpret(f"int8x{4 * lanes}", activations),
            weights,
        )


class WidenedDot(IntegerDot):
    """AVX2 / AVX-512: two s16 x s16 products per 32-bit lane by vpmaddwd.

    Products of a u8 and a s8 fit 16 bits, and the sum of two fits 32: exact. vpmaddubsw would
    take the bytes directly, but saturates the sum of two products at 16 bits.
    """

    group = 2
    activation_dtype = "int16"
    weight_dtype = "int16"
    _names: ClassVar[dict[int, str]] = {
        8: "llvm.x86.avx2.pmadd.wd",
        16: "llvm.x86.avx512.pmaddw.d.512",
    }

    def accumulate(self, accumulator: Any, activations: Any, weights: Any, lanes: int) -> Any:
        """See `IntegerDot.accumulate`."""
        pairs = tirx.reinterpret(f"int16x{2 * lanes}", activations)
        return accumulator + _intrinsic(f"int32x{lanes}", self._names[lanes], pairs, weights)


def integer_dot(isa: Isa) -> IntegerDot:
    """The exact integer dot product of an instruction set."""
    return Vpdpbusd() if isa.int8_dot == "vpdpbusd" else WidenedDot()


def multiply_bits(values: Any, matrix: Any, lanes: int) -> Any:
    """GFNI's vgf2p8affineqb: every byte, a vector of 8 bits, times one 8 x 8 matrix of bits.

    Args:
        values: int8 vector of `lanes`.
        matrix: int64 scalar; byte 7 - i selects the bits whose parity is bit i of the result.
        lanes: 16, 32 or 64.
    """
    rows = tirx.reinterpret(f"int8x{lanes}", tirx.Broadcast(matrix, lanes // 8))
    name = f"llvm.x86.vgf2p8affineqb.{8 * lanes}"
    return _intrinsic(f"int8x{lanes}", name, values, rows, tirx.const(0, "int8"))


def look_up(table: Sequence[float], indices: Any) -> Any:
    """AVX-512: 16 entries of a table of 16, by the lowest 4 bits of each index.

    Args:
        table: 16 numbers.
        indices: int32 vector of 16.
    """
    entries = tirx.Shuffle([tirx.const(entry, "float32") for entry in table], list(range(16)))
    return _intrinsic("float32x16", "llvm.x86.avx512.permvar.sf.512", entries, indices)


def prefetch(buffer: Any, index: Sequence[Any]) -> Any:
    """A statement that fetches the cache line of an element; it may lie behind the buffer."""
    address = tirx.call_intrin("handle", "tirx.address_of", tirx.BufferLoad(buffer, list(index)))
    read, keep, data = (tirx.const(value, "int32") for value in (0, 3, 1))
    return tirx.Evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch", address, read, keep, data))
