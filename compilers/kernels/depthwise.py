"""Depthwise k x k convolution: one window per channel, channels across the vector lanes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from compilers.errors import KernelError
from compilers.intrinsics import Vpdpbusd, interleave_pixels, truncate_to_int
from compilers.kernels.base import DType, Kernel, LayerParams
from compilers.kernels.emitter import (
    Buffer,
    Emitter,
    Expr,
    Index,
    cast,
    load,
    minimum,
    splat,
)
from compilers.kernels.epilogue import Cell, Epilogue, EpilogueCode, layer_epilogue, require
from compilers.kernels.packing import checked, integer_bias
from compilers.kernels.tiling import ColumnRun, column_runs, even_parts, out_size, row_runs
from compilers.kernels.window import copy_inside, fill_border, window_rows
from spaces.layer_spec import Activation

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tvm import tirx

    from compilers.targets import Isa

_PIXELS = 4
"""Horizontally adjacent pixels that one vpdpbusd multiplies per lane."""

_TILE_ROWS, _TILE_COLUMNS = 4, 2
"""Output pixels whose windows share operands in the integer kernel."""


@dataclass(frozen=True)
class Depthwise(Kernel):
    """`out[..., c] = epilogue(window(x[..., c]) * weight[c] + bias[c])`, padding `kernel // 2`.

    Arguments of the function: x, weight, start, [scale, factors, zeros,] output. A uint8 input
    selects exact integer arithmetic on int8 weights.

    Attributes:
        height: of the input, pixels.
        width: of the input, pixels.
        channels: a multiple of 8.
        kernel: side of the window, odd.
        stride: 1 or 2.
    """

    kind: ClassVar[str] = "depthwise"

    height: int
    width: int
    channels: int
    kernel: int
    stride: int
    input_dtype: DType = "float32"
    activation: Activation = Activation.NONE
    output_dtype: DType = "float32"

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise KernelError(f"depthwise image of {self.height} x {self.width}: must be >= 1")
        if self.channels < 8 or self.channels % 8:
            raise KernelError(f"depthwise of {self.channels} channels: must be a multiple of 8")
        if self.kernel < 1 or self.kernel % 2 == 0 or self.stride not in (1, 2):
            raise KernelError(
                f"depthwise with kernel {self.kernel} and stride {self.stride}: "
                "the kernel must be odd, the stride 1 or 2"
            )
        _ = self.epilogue

    @property
    def epilogue(self) -> Epilogue:
        """What follows the window."""
        return layer_epilogue(self.input_dtype, self.activation, None, self.output_dtype)

    @property
    def out_height(self) -> int:
        """Pixels."""
        return out_size(self.height, self.kernel, self.stride)

    @property
    def out_width(self) -> int:
        """Pixels."""
        return out_size(self.width, self.kernel, self.stride)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[H * W, C]."""
        return (self.height * self.width, self.channels)

    @property
    def output_shape(self) -> tuple[int, int]:
        """[out height * out width, C]."""
        return (self.out_height * self.out_width, self.channels)

    def constants(self, isa: Isa, params: LayerParams) -> tuple[NDArray[Any], ...]:
        """See `Kernel.constants`. `params.weight` is [C, 1, k, k]."""
        k, channels = self.kernel, self.channels
        shape, tail = (channels, 1, k, k), self.epilogue
        fold = tail.fold(params)
        if not tail.integer:
            taps = checked("weight", params.weight, shape, np.float32).reshape(channels, -1) * fold
            bias = checked("bias", params.bias, (channels,), np.float32) * fold
            return np.ascontiguousarray(taps.T), bias, *tail.scalars(params)
        weight = checked("weight", params.weight, shape, np.int8)
        start = checked("bias", params.bias, (channels,), np.int32)
        zero_point = require("input", params.input).zero_point
        scale = checked("scale", params.scale, (channels,), np.float32) * fold
        if isa.int8_dot == "vpdpbusd":
            start = integer_bias(weight, start, zero_point)
            packed = _pack_interleaved(weight.reshape(channels, k, k), self.lanes(isa))
        else:
            packed = np.ascontiguousarray(weight.reshape(channels, -1).T.astype(np.float32))
        return packed, start, scale, *tail.scalars(params)

    def lanes(self, isa: Isa) -> int:
        """Vector length: the registers', or 8 when there are only 8 channels."""
        return min(isa.vector_lanes, 8 if self.channels < isa.vector_lanes else 16)

    def prim_func(self, isa: Isa) -> tirx.PrimFunc:
        """See `Kernel.prim_func`."""
        if self.input_dtype == "float32":
            return _FloatCode(self, isa).build()
        if isa.int8_dot == "vpdpbusd":
            return _InterleavedCode(self, isa).build()
        return _WidenedCode(self, isa).build()


def _pack_interleaved(weight: NDArray[np.int8], lanes: int) -> NDArray[np.int8]:
    """[C, k, k] -> [ceil(C / lanes), k, ceil(k / 4), lanes * 4].

    The last axis holds, per channel, four horizontally adjacent taps (zeros behind the window).
    The last block of channels ends at C, and overlaps its neighbour when C is no multiple of
    `lanes`.
    """
    channels, k, _ = weight.shape
    padded = np.pad(weight, ((0, 0), (0, 0), (0, -k % _PIXELS)))
    blocks = [
        padded[first : first + lanes]
        for first in (min(c, channels - lanes) for c in range(0, channels, lanes))
    ]
    grouped = np.stack(blocks).reshape(len(blocks), lanes, k, -1, _PIXELS)
    return np.ascontiguousarray(
        grouped.transpose(0, 2, 3, 1, 4).reshape(len(blocks), k, -1, lanes * _PIXELS)
    )


class _DepthwiseCode:
    """What the three variants share: blocks of channels outside, rows, tiles of columns.

    A last block that is not full overlaps its neighbour, so that every vector is full.
    """

    def __init__(self, kernel: Depthwise, isa: Isa) -> None:
        self.kernel = kernel
        self.isa = isa
        self.em = Emitter()
        self.lanes = kernel.lanes(isa)
        self.blocks = -(-kernel.channels // self.lanes)

    def arguments(self, weight_shape: tuple[int, ...], weight_dtype: str) -> None:
        kernel, em = self.kernel, self.em
        self.x = em.argument("x", kernel.input_shape, kernel.input_dtype)
        self.weight = em.argument("weight", weight_shape, weight_dtype)
        start_dtype = "int32" if kernel.input_dtype == "uint8" else "float32"
        self.start = em.argument("start", (kernel.channels,), start_dtype)
        self.tail = EpilogueCode(em, kernel.epilogue, kernel.channels, self.isa.vector_lanes)
        self.out = em.argument("out", kernel.output_shape, kernel.output_dtype)

    def each_block(self, body: Callable[[Index, Index], None]) -> Any:
        """Run `body(block, first channel)` over the channels, and close the function."""

        def block(j: Index) -> None:
            first = j * self.lanes
            if self.kernel.channels % self.lanes:
                last = self.kernel.channels - self.lanes
                first = (
                    min(first, last) if isinstance(j, int) else self.em.let(minimum(first, last))
                )
            body(j, first)

        self.em.loop(self.blocks, block)
        return self.em.function(self.kernel.symbol(self.isa))

    def each_pixel(self, body: Callable[[Index], None]) -> None:
        """Run `body` over the pixels of the input."""
        self.em.loop(self.kernel.height * self.kernel.width, body)

    def store(self, sums: Sequence[tuple[Index, Buffer]], channel: Index) -> None:
        """Finish (output pixel, accumulator) pairs of one block of channels."""
        cells = []
        for pixel, total in sums:
            value = self.em.let(self.finished(load(total, [0], self.lanes), channel))
            cells.append(Cell(pixel, channel, self.lanes, self.lanes, value))
        self.tail.store(self.out, cells)

    def finished(self, value: Expr, channel: Index) -> Expr:
        """The accumulator that the epilogue takes."""
        del channel
        return value


class _FloatCode(_DepthwiseCode):
    """float32: taps outside the image are skipped, each input column of a tile is loaded once."""

    accumulator = "float32"

    def column_limit(self) -> int:
        """Accumulators, the window row's weights and one pixel must fit the registers."""
        return min(8, self.isa.vector_registers - self.kernel.kernel - 2)

    def build(self) -> Any:
        kernel = self.kernel
        self.arguments((kernel.kernel**2, kernel.channels), "float32")
        self.source: Buffer = self.x

        def block(_: Index, channel: Index) -> None:
            self.rows(channel, channel)

        return self.each_block(block)

    def rows(self, channel: Index, source_channel: Index) -> None:
        kernel, em = self.kernel, self.em
        runs = column_runs(
            kernel.out_width, kernel.width, kernel.kernel, kernel.stride, self.column_limit()
        )

        def row(oh: Index) -> None:
            taps = window_rows(em, oh, kernel.height, kernel.kernel, kernel.stride)
            for run in runs:

                def tile(i: Index, run: ColumnRun = run) -> None:
                    ow = run.first + i * run.width
                    self.tile(oh, ow, run, taps, channel, source_channel)

                em.loop(run.tiles, tile)

        em.loop(kernel.out_height, row)

    def start_value(self, channel: Index) -> Expr:
        """What an accumulator starts with."""
        return load(self.start, [channel], self.lanes)

    def tile(
        self,
        oh: Index,
        ow: Index,
        run: ColumnRun,
        taps: tuple[Index, Index],
        channel: Index,
        source_channel: Index,
    ) -> None:
        kernel, em, lanes = self.kernel, self.em, self.lanes
        k, stride = kernel.kernel, kernel.stride
        sums = [em.register(lanes) for _ in range(run.width)]
        for total in sums:
            em.store(total, [0], self.start_value(channel), lanes)

        def window_row(kh: Index) -> None:
            first = (oh * stride - k // 2 + kh) * kernel.width
            weights = [em.let(load(self.weight, [kh * k + kw, channel], lanes)) for kw in range(k)]
            for dx in range((run.width - 1) * stride + k):
                column = ow * stride - k // 2 + dx
                reached = [(t, dx - t * stride) for t in range(run.width)]
                reached = [(t, kw) for t, kw in reached if 0 <= kw < k]
                if not reached or not (run.inside or 0 <= column < kernel.width):
                    continue
                pixel = em.let(load(self.source, [first + column, source_channel], lanes))
                for t, kw in reached:
                    value = load(sums[t], [0], lanes) + pixel * weights[kw]
                    em.store(sums[t], [0], value, lanes)

        first_row, count = taps
        em.loop(count, window_row, start=first_row)
        pixel = oh * kernel.out_width + ow
        self.store([(pixel + t, total) for t, total in enumerate(sums)], channel)


class _WidenedCode(_FloatCode):
    """Integers without VNNI: q - zero_point as float32, whose sums of a window are exact.

    A product is below 2^15.1 and a window has at most 2^8 taps, so that every partial sum is an
    integer below 2^24. The bias, which may be larger, is added as int32.
    """

    def build(self) -> Any:
        kernel, em, lanes = self.kernel, self.em, self.lanes
        if kernel.kernel > 15:
            raise KernelError(f"integer depthwise with kernel {kernel.kernel}: at most 15")
        self.arguments((kernel.kernel**2, kernel.channels), "float32")
        self.source = em.scratch((kernel.height * kernel.width, lanes))
        zero = em.let(self.tail.input_zero(lanes))

        def block(_: Index, channel: Index) -> None:
            def pixel(p: Index) -> None:
                integer = cast(load(self.x, [p, channel], lanes), "int32", lanes) - zero
                em.store(self.source, [p, 0], cast(integer, "float32", lanes), lanes)

            self.each_pixel(pixel)
            self.rows(channel, 0)

        return self.each_block(block)

    def start_value(self, channel: Index) -> Expr:
        """The bias comes after the conversion to integers."""
        del channel
        return splat(0.0, self.lanes)

    def finished(self, value: Expr, channel: Index) -> Expr:
        """The exact sum as int32, plus the bias."""
        return truncate_to_int(value, self.lanes) + load(self.start, [channel], self.lanes)


class _InterleavedCode(_DepthwiseCode):
    """Integers with VNNI: the four bytes of a lane are four horizontally adjacent pixels.

    Each block of channels is copied once with a border of the zero point, so that four pixels of
    a block are 64 consecutive bytes: one load and one permutation give the operand, and it serves
    every window row that covers it. A tile is some output rows of one or two columns.
    """

    def build(self) -> Any:
        kernel, em, lanes = self.kernel, self.em, self.lanes
        k = kernel.kernel
        self.groups = -(-k // _PIXELS)
        self.arguments((self.blocks, k, self.groups, lanes * _PIXELS), "int8")
        border = k // 2
        self.full_width = kernel.width + 2 * border
        # The last operand of a row reaches beyond the window: those taps are zero.
        pixels = (kernel.height + 2 * border) * self.full_width + self.groups * _PIXELS - k
        self.image = em.scratch((pixels * lanes,), "uint8")
        zero = self.tail.input_zero
        size = (kernel.height, kernel.width)
        fill_border(em, self.image, size, lanes, border, zero)
        rows = row_runs(kernel.out_height, even_parts(kernel.out_height, _TILE_ROWS)[0])
        columns = row_runs(kernel.out_width, min(_TILE_COLUMNS, kernel.out_width))

        def block(j: Index, channel: Index) -> None:
            copy_inside(em, self.image, self.x, size, channel, lanes, border)
            for first_row, row_tiles, height in rows:

                def row(i: Index, first: int = first_row, height: int = height) -> None:
                    for first_column, column_tiles, width in columns:

                        def tile(c: Index, start: int = first_column, width: int = width) -> None:
                            oh, ow = first + i * height, start + c * width
                            self.tile(oh, ow, height, width, j, channel)

                        em.loop(column_tiles, tile)

                em.loop(row_tiles, row)

        return self.each_block(block)

    def tile(
        self, oh: Index, ow: Index, height: int, width: int, block: Index, channel: Index
    ) -> None:
        kernel, em, lanes, dot = self.kernel, self.em, self.lanes, Vpdpbusd()
        k, stride = kernel.kernel, kernel.stride
        sums = [[em.register(lanes, "int32") for _ in range(width)] for _ in range(height)]
        for line in sums:
            for total in line:
                em.store(total, [0], load(self.start, [channel], lanes), lanes)
        weights = [
            [em.let(load(self.weight, [block, kh, g, 0], lanes * _PIXELS))
             for g in range(self.groups)]
            for kh in range(k)
        ]  # fmt: skip
        for dy in range((height - 1) * stride + k):
            reached = [(r, dy - r * stride) for r in range(height)]
            reached = [(r, kh) for r, kh in reached if 0 <= kh < k]
            for t in range(width) if reached else ():
                for g in range(self.groups):
                    pixel = (oh * stride + dy) * self.full_width + (ow + t) * stride
                    at = (pixel + g * _PIXELS) * lanes
                    four = em.let(load(self.image, [at], lanes * _PIXELS))
                    pixels = em.let(interleave_pixels(four, lanes))
                    for r, kh in reached:
                        old = load(sums[r][t], [0], lanes)
                        new = dot.accumulate(old, pixels, weights[kh][g], lanes)
                        em.store(sums[r][t], [0], new, lanes)
        pixel = oh * kernel.out_width + ow
        self.store(
            [
                (pixel + r * kernel.out_width + t, total)
                for r, line in enumerate(sums)
                for t, total in enumerate(line)
            ],
            channel,
        )
