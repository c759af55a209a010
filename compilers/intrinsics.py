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


def _vector(dtype: str, lanes: int) -> str:
    return f"{dtype}x{lanes}" if lanes > 1 else dtype


def _splat(value: int, dtype: str, lanes: int) -> Any:
    scalar = tirx.const(value, dtype)
    return tirx.Broadcast(scalar, lanes) if lanes > 1 else scalar


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
_NEON_LANES = 4


def pack_to_uint8(vectors: Sequence[Any], zero_point: Any, lanes: int, *, relu: bool) -> Any:
    """clamp(vector + zero_point, 0, 255) of four int32 vectors, one after the other.

    Half the instructions of four single conversions. The packs of x86 work inside 128-bit pieces,
    so that one permutation of 32-bit groups must restore the order.

    Args:
        vectors: four int32 vectors of `lanes`.
        zero_point: int32 scalar in 0..255.
        lanes: 16 (AVX-512), 8 (AVX2) or 4 (NEON).
        relu: clamp at the zero point instead of at 0.
    """
    short = f"int16x{2 * lanes}"
    zero = tirx.Broadcast(tirx.Cast("int16", zero_point), 2 * lanes)

    def pair(a: Any, b: Any) -> Any:
        if lanes == _NEON_LANES:
            packed = _narrowed("sqxtn", "int16", (a, b), lanes)
        else:
            packed = _intrinsic(short, _PACKS[lanes][0], a, b)
        if relu:
            packed = tirx.max(packed, tirx.Broadcast(tirx.const(0, "int16"), 2 * lanes))
        return _intrinsic(short, "llvm.sadd.sat", packed, zero)

    a, b, c, d = vectors
    if lanes == _NEON_LANES:
        packed = _narrowed("sqxtun", "int8", (pair(a, b), pair(c, d)), 2 * lanes)
        return tirx.reinterpret(f"uint8x{4 * lanes}", packed)
    packed = _intrinsic(f"int8x{4 * lanes}", _PACKS[lanes][1], pair(a, b), pair(c, d))
    groups = tirx.reinterpret(f"int32x{lanes}", packed)
    order = [4 * piece + vector for vector in range(4) for piece in range(lanes // 4)]
    return tirx.reinterpret(f"uint8x{4 * lanes}", tirx.Shuffle([groups], order))


def _narrowed(name: str, dtype: str, vectors: Sequence[Any], lanes: int) -> Any:
    """The concatenation of NEON vectors of `lanes`, saturated to elements of half the size."""
    halves = [_intrinsic(f"{dtype}x{lanes}", f"llvm.aarch64.neon.{name}", v) for v in vectors]
    return tirx.Shuffle(halves, list(range(len(vectors) * lanes)))


_PERMUTED_PIXELS = 4


def interleave_pixels(pixels: Any, lanes: int) -> Any:
    """Bytes [4 pixels, lanes channels] -> int32 [lanes], the four pixels of a channel together.

    AVX-512 VBMI permutes the 64 bytes in one instruction, NEON 16 by `tbl`.
    """
    order = [p * lanes + c for c in range(lanes) for p in range(_PERMUTED_PIXELS)]
    return tirx.reinterpret(f"int32x{lanes}", tirx.Shuffle([pixels], order))


class IntegerDot(ABC):
    """Exact sums of u8 x s8 products, several per 32-bit lane.

    Activations reach the instruction as `group` consecutive channels of one pixel in one int32,
    weights as `group` consecutive channels of every lane's output channel.

    Attributes:
        group: reduction steps (input channels) per instruction and lane.
        instructions: vector instructions per step.
        activation_dtype: element type in which activations must lie in memory.
        offset: what `convert` subtracts from activations; the accumulator's start makes up for it.
        weight_dtype: element type of the packed weights.
    """

    group: ClassVar[int]
    instructions: ClassVar[float] = 1.0
    activation_dtype: ClassVar[str]
    offset: ClassVar[int] = 0
    weight_dtype: ClassVar[str]

    def convert(self, values: Any, lanes: int) -> Any:
        """uint8 activations -> `activation_dtype`, less `offset`."""
        return tirx.Cast(_vector(self.activation_dtype, lanes), values)

    @abstractmethod
    def accumulate(self, accumulator: Any, activations: Any, weights: Any, lanes: int) -> Any:
        """`accumulator[i] + sum_g activations[i, g] * weights[i, g]`, all exact.

        Args:
            accumulator: int32 vector of `lanes`.
            activations: int32 vector of `lanes`, each the bits of `group` converted activations.
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
    instructions = 2.0
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


class Sdot(IntegerDot):
    """ARM v8.2: four s8 x s8 products added to a 32-bit lane.

    usdot, which takes u8 activations, came with the later i8mm extension. An activation less 128
    fits s8, and is its own bits with the highest one flipped.
    """

    group = 4
    activation_dtype = "int8"
    offset = 128
    weight_dtype = "int8"

    def convert(self, values: Any, lanes: int) -> Any:
        """See `IntegerDot.convert`."""
        if lanes % 4:
            return tirx.reinterpret(_vector("int8", lanes), values ^ _splat(0x80, "uint8", lanes))
        # Four bytes are no vector that NEON has.
        words = tirx.reinterpret(_vector("uint32", lanes // 4), values)
        words = words ^ _splat(0x80808080, "uint32", lanes // 4)
        return tirx.reinterpret(_vector("int8", lanes), words)

    def accumulate(self, accumulator: Any, activations: Any, weights: Any, lanes: int) -> Any:
        """See `IntegerDot.accumulate`."""
        return _intrinsic(
            f"int32x{lanes}",
            "llvm.aarch64.neon.sdot",
            accumulator,
            tirx.reinterpret(f"int8x{4 * lanes}", activations),
            weights,
        )


_DOTS: dict[str, type[Vpdpbusd] | type[WidenedDot] | type[Sdot]] = {
    "vpdpbusd": Vpdpbusd,
    "widen": WidenedDot,
    "sdot": Sdot,
}


def integer_dot(isa: Isa) -> IntegerDot:
    """The exact integer dot product of an instruction set."""
    return _DOTS[isa.int8_dot]()


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


def prefetch(buffer: Any, index: Sequence[Any], locality: int = 3) -> Any:
    """A statement that fetches the cache line of an element; it may lie behind the buffer.

    Args:
        buffer: the tensor.
        index: of the element.
        locality: 3 for the first-level cache, 2 for the second.
    """
    address = tirx.call_intrin("handle", "tirx.address_of", tirx.BufferLoad(buffer, list(index)))
    read, keep, data = (tirx.const(value, "int32") for value in (0, locality, 1))
    return tirx.Evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch", address, read, keep, data))
