"""Conversions between float32 and uint8 tensors that no neighbouring kernel could take over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from compilers.errors import KernelError
from compilers.kernels.base import DType, Kernel, LayerParams, RowwiseKernel
from compilers.kernels.emitter import (
    Emitter,
    Index,
    broadcast,
    cast,
    load,
    reinterpret,
    shuffle,
    splat,
)
from compilers.kernels.epilogue import EpilogueCode, plain_epilogue, require
from compilers.kernels.tiling import thread_chunks

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tvm import tirx

    from compilers.targets import Isa

_CYCLES_PER_VECTOR = 4.0

CHANNEL_GROUP = 4
"""Channels that an integer product takes at a time."""


@dataclass(frozen=True)
class Quantize(RowwiseKernel):
    """`out = clamp(round_half_even(x * (1 / scale)) + zero_point, 0, 255)`, float32 -> uint8.

    Arguments of the function: x, factors, zeros, output.
    """

    kind: ClassVar[str] = "quantize"
    input_dtype: ClassVar[DType] = "float32"
    output_dtype: ClassVar[DType] = "uint8"

    def constants(self, isa: Isa, params: LayerParams) -> tuple[NDArray[Any], ...]:
        """See `Kernel.constants`: the scalars of `params.output`."""
        del isa
        return plain_epilogue("float32", "uint8").scalars(params)

    def prim_func(self, isa: Isa) -> tirx.PrimFunc:
        """See `Kernel.prim_func`."""
        em = Emitter()
        x = em.argument("x", self.input_shape)
        code = EpilogueCode(em, plain_epilogue("float32", "uint8"), 0, isa.vector_lanes)
        out = em.argument("out", self.output_shape, "uint8")

        def row(i: Index) -> None:
            def piece(channel: Index, lanes: int) -> None:
                value = code.quantise_real(load(x, [i, channel], lanes), lanes)
                em.store(out, [i, channel], value, lanes)

            em.pieces(self.channels, isa.vector_lanes, piece)

        each_row(em, isa, self.rows, self.channels, row)
        return em.function(self.symbol(isa))


@dataclass(frozen=True)
class QuantizeImage(Kernel):
    """`Quantize` of a network's image [1, C, H, W], which becomes [H * W, C] for integer layers.

    Channels are filled up with the zero point to a multiple of 4, which integer products take at a
    time. Arguments of the function: x, factors, zeros, output.
    """

    kind: ClassVar[str] = "quantize_image"
    input_dtype: ClassVar[DType] = "float32"
    output_dtype: ClassVar[DType] = "uint8"

    height: int
    width: int
    channels: int

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.channels) < 1:
            sizes = f"{self.channels} x {self.height} x {self.width}"
            raise KernelError(f"an image of {sizes}: every size must be >= 1")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[1, channels, height, width]."""
        return (1, self.channels, self.height, self.width)

    @property
    def output_shape(self) -> tuple[int, int]:
        """[height * width, channels, filled up to a multiple of 4]."""
        return (self.height * self.width, filled_channels(self.channels))

    def constants(self, isa: Isa, params: LayerParams) -> tuple[NDArray[Any], ...]:
        """See `Kernel.constants`: the scalars of `params.output`."""
        del isa
        return plain_epilogue("float32", "uint8").scalars(params)

    def prim_func(self, isa: Isa) -> tirx.PrimFunc:
        """See `Kernel.prim_func`."""
        em = Emitter()
        x = em.argument("x", self.input_shape)
        code = EpilogueCode(em, plain_epilogue("float32", "uint8"), 0, isa.vector_lanes)
        out = em.argument("out", self.output_shape, "uint8")
        stored = self.output_shape[1]

        def row(h: Index) -> None:
            def piece(column: Index, lanes: int) -> None:
                for first in range(0, stored, CHANNEL_GROUP):
                    word = None
                    for byte in range(CHANNEL_GROUP):
                        value = splat(0.0, lanes)
                        if first + byte < self.channels:
                            value = load(x, [0, first + byte, h, column], lanes)
                        integer = cast(code.quantise_real(value, lanes), "int32", lanes)
                        integer = integer << splat(8 * byte, lanes, "int32")
                        word = em.let(integer if word is None else word | integer)
                    values = em.let(reinterpret(word, "uint8", CHANNEL_GROUP * lanes))
                    pixel = h * self.width + column
                    if stored == CHANNEL_GROUP:
                        em.store(out, [pixel, 0], values, CHANNEL_GROUP * lanes)
                        continue
                    for lane in range(lanes):
                        part = shuffle([values], range(4 * lane, 4 * lane + 4))
                        em.store(out, [pixel + lane, first], part, CHANNEL_GROUP)

            em.pieces(self.width, isa.vector_lanes, piece)

        each_row(em, isa, self.height, self.width * stored, row)
        return em.function(self.symbol(isa))


def filled_channels(channels: int) -> int:
    """Channels of a quantised image in memory: a multiple of 4, of which integer products read."""
    return -(-channels // CHANNEL_GROUP) * CHANNEL_GROUP


@dataclass(frozen=True)
class Dequantize(RowwiseKernel):
    """`out = (x - zero_point) * scale`, uint8 -> float32.

    Arguments of the function: x, scale [1], zero point [1], output.
    """

    kind: ClassVar[str] = "dequantize"
    input_dtype: ClassVar[DType] = "uint8"
    output_dtype: ClassVar[DType] = "float32"

    def constants(self, isa: Isa, params: LayerParams) -> tuple[NDArray[Any], ...]:
        """See `Kernel.constants`: scale and zero point of `params.input`."""
        del isa
        quantised = require("input", params.input)
        return np.array([quantised.scale], np.float32), np.array([quantised.zero_point], np.int32)

    def prim_func(self, isa: Isa) -> tirx.PrimFunc:
        """See `Kernel.prim_func`."""
        em = Emitter()
        x = em.argument("x", self.input_shape, "uint8")
        scale = em.argument("scale", (1,))
        zero = em.argument("zero", (1,), "int32")
        out = em.argument("out", self.output_shape)

        def row(i: Index) -> None:
            def piece(channel: Index, lanes: int) -> None:
                integer = cast(load(x, [i, channel], lanes), "int32", lanes)
                integer = integer - broadcast(load(zero, [0], 1), lanes)
                real = cast(integer, "float32", lanes) * broadcast(load(scale, [0], 1), lanes)
                em.store(out, [i, channel], real, lanes)

            em.pieces(self.channels, isa.vector_lanes, piece)

        each_row(em, isa, self.rows, self.channels, row)
        return em.function(self.symbol(isa))


def each_row(
    em: Emitter, isa: Isa, rows: int, channels: int, body: Callable[[Index], None]
) -> None:
    """Run `body(row)` for rows of [rows, channels], by several threads where that pays."""
    cycles = rows * channels / isa.vector_lanes * _CYCLES_PER_VECTOR
    chunks = thread_chunks(isa, cycles, rows)

    def chunk(i: Index) -> None:
        first, count = em.share(rows, i, chunks)
        em.loop(count, body, start=first)

    em.parallel(chunks, chunk)
