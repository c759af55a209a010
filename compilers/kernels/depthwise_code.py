"""Three ways to compute a depthwise convolution: float32, integers by fours, and by pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from compilers.intrinsics import IntegerDot, WidenedDot, integer_dot, interleave_pixels
from compilers.kernels.emitter import (
    Buffer,
    Emitter,
    Expr,
    Index,
    cast,
    load,
    maximum,
    minimum,
    splat,
)
from compilers.kernels.epilogue import Cell, EpilogueCode
from compilers.kernels.nibbles import WeightArgument
from compilers.kernels.tiling import ColumnRun, column_runs, even_parts, row_runs, thread_chunks
from compilers.kernels.window import copy_inside, fill_border, window_rows

if TYPE_CHECKING:
    from compilers.kernels.depthwise import Depthwise
    from compilers.targets import Isa

PIXELS = 4
"""Horizontally adjacent pixels that one vpdpbusd or sdot multiplies per lane."""

_HIGH = 1 << 16
"""Shifts a value into the upper half of a 32-bit lane."""

_BAND_BYTES = 1 << 19
"""Input that stays in a second-level cache while every block of channels passes over it."""

_TILE_ROWS, _TILE_COLUMNS = 4, 2
"""Output pixels whose windows share operands in the integer kernel."""


class DepthwiseCode:
    """What the three variants share: blocks of channels outside, rows, tiles of columns.

    A last block that is not full overlaps its neighbour, so that every vector is full. Threads
    divide the rows: divided channels of a pixel would share cache lines.
    """

    def __init__(self, kernel: Depthwise, isa: Isa) -> None:
        self.kernel = kernel
        self.isa = isa
        self.em = Emitter()
        self.lanes = kernel.lanes(isa)
        self.blocks = -(-kernel.channels // self.lanes)

    def arguments(
        self, weight_shape: tuple[int, ...], dot: IntegerDot | None, start_dtype: str = "float32"
    ) -> None:
        kernel, em = self.kernel, self.em
        self.x = em.argument("x", kernel.input_shape, kernel.input_dtype)
        self.weight = WeightArgument(em, weight_shape, dot, kernel.weight_bits)
        self.start = em.argument("start", (kernel.channels,), start_dtype)
        self.tail = EpilogueCode(em, kernel.epilogue, kernel.channels, self.isa.vector_lanes)
        self.out = em.argument("out", kernel.output_shape, kernel.output_dtype)

    def banded(self, prepare: Callable[[], None], body: Callable[[Index, int], None]) -> Any:
        """Run `body(first, count)` on bands of output rows, and close the function.

        All blocks of channels pass over a band before the next, so that it stays in the cache.
        `prepare` runs once on every thread.
        """
        kernel, em = self.kernel, self.em
        cycles = prod(kernel.output_shape) / self.lanes * kernel.kernel**2
        chunks = thread_chunks(self.isa, cycles, kernel.out_height)
        size = prod(kernel.input_shape) * (4 if kernel.input_dtype == "float32" else 1)
        bands = -(-max(chunks, -(-size // _BAND_BYTES)) // chunks) * chunks
        runs = row_runs(kernel.out_height, -(-kernel.out_height // bands))
        counts = [count for _, count, _ in runs]

        def chunk(index: Index) -> None:
            parts = em.parts(counts, index, chunks)
            prepare()
            for (first, _, rows), (start, count) in zip(runs, parts, strict=True):

                def band(i: Index, first: int = first, rows: int = rows) -> None:
                    body(first + i * rows, rows)

                em.loop(count, band, start=start)

        em.parallel(chunks, chunk)
        return em.function(kernel.symbol(self.isa))

    def input_rows(self, first: Index, count: int) -> tuple[Index, Index]:
        """(first, count) of the input rows inside the image that a band of the output needs."""
        kernel = self.kernel
        top = first * kernel.stride - kernel.kernel // 2
        start = self.em.let(maximum(top, 0))
        end = top + (count - 1) * kernel.stride + kernel.kernel
        return start, self.em.let(minimum(end, kernel.height) - start)

    def each_block(self, body: Callable[[Index, Index], None]) -> None:
        """Run `body(block, first channel)` over the channels."""

        def block(j: Index) -> None:
            first = j * self.lanes
            if self.kernel.channels % self.lanes:
                last = self.kernel.channels - self.lanes
                first = self.em.let(minimum(first, last))
            body(j, first)

        self.em.loop(self.blocks, block)

    def store(self, sums: Sequence[tuple[Index, Buffer]], channel: Index) -> None:
        """Finish (output pixel, accumulator) pairs of one block of channels."""
        cells = []
        for pixel, total in sums:
            value = self.em.let(load(total, [0], self.lanes))
            cells.append(Cell(pixel, channel, self.lanes, self.lanes, value))
        self.tail.store(self.out, cells)


class FloatCode(DepthwiseCode):
    """float32: taps outside the image are skipped, each input column of a tile is loaded once."""

    def column_limit(self) -> int:
        """Accumulators, the window row's weights and one pixel must fit the registers."""
        return min(8, self.isa.vector_registers - self.kernel.kernel - 2)

    def build(self) -> Any:
        kernel = self.kernel
        self.arguments((kernel.kernel**2, kernel.channels), None)

        def body(first: Index, count: int) -> None:
            self.each_block(lambda _, channel: self.rows(first, count, channel))

        return self.banded(lambda: None, body)

    def rows(self, first: Index, count: int, channel: Index) -> None:
        kernel, em = self.kernel, self.em
        window = (kernel.kernel, kernel.stride, kernel.kernel // 2)
        runs = column_runs(kernel.out_width, kernel.width, *window, self.column_limit())

        def row(oh: Index) -> None:
            taps = window_rows(em, oh, kernel.height, *window)
            for run in runs:

                def tile(i: Index, run: ColumnRun = run) -> None:
                    ow = run.first + i * run.width
                    self.tile(oh, ow, run, taps, channel)

                em.loop(run.tiles, tile)

        em.loop(count, lambda i: row(first + i))

    def tile(
        self,
        oh: Index,
        ow: Index,
        run: ColumnRun,
        taps: tuple[Index, Index],
        channel: Index,
    ) -> None:
        kernel, em, lanes = self.kernel, self.em, self.lanes
        k, stride = kernel.kernel, kernel.stride
        sums = [em.register(lanes) for _ in range(run.width)]
        for total in sums:
            em.store(total, [0], load(self.start, [channel], lanes), lanes)

        def window_row(kh: Index) -> None:
            first = (oh * stride - k // 2 + kh) * kernel.width
            weights = [self.weight.load([kh * k + kw, channel], lanes) for kw in range(k)]
            for dx in range((run.width - 1) * stride + k):
                column = ow * stride - k // 2 + dx
                reached = [(t, dx - t * stride) for t in range(run.width)]
                reached = [(t, kw) for t, kw in reached if 0 <= kw < k]
                if not reached or not (run.inside or 0 <= column < kernel.width):
                    continue
                pixel = em.let(load(self.x, [first + column, channel], lanes))
                for t, kw in reached:
                    value = load(sums[t], [0], lanes) + pixel * weights[kw]
                    em.store(sums[t], [0], value, lanes)

        first_row, count = taps
        em.loop(count, window_row, start=first_row)
        pixel = oh * kernel.out_width + ow
        self.store([(pixel + t, total) for t, total in enumerate(sums)], channel)


class PairedCode(DepthwiseCode):
    """Integers on x86 without VNNI: vpmaddwd multiplies two horizontally adjacent pixels per lane.

    Each block of channels is copied once with a border of the zero point, every pixel as 16 bits
    beside its right neighbour, so that one load gives the operand of two taps. Accumulators are
    int32 from the bias on: products fit 16 bits, sums of two fit 32.
    """

    def build(self) -> Any:
        kernel, em, lanes = self.kernel, self.em, self.lanes
        k, border = kernel.kernel, kernel.kernel // 2
        self.groups = -(-k // WidenedDot.group)
        shape = (k, self.groups, kernel.channels * WidenedDot.group)
        self.arguments(shape, WidenedDot(), "int32")
        self.full_width = kernel.width + 2 * border
        pixels = (kernel.height + 2 * border) * self.full_width
        size = (kernel.height, kernel.width)
        limit = min(8, self.isa.vector_registers - self.groups - 3)
        columns = row_runs(kernel.out_width, even_parts(kernel.out_width, limit)[0])

        def prepare() -> None:
            # Elements are vectors, for which LLVM aligns the stack.
            self.image = em.scratch((pixels,), f"int32x{lanes}")
            zeros = em.let(self.tail.input_zero(lanes) * splat(1 + _HIGH, lanes, "int32"))
            fill_border(em, self.image, size, 1, border, lambda _: zeros, width=1)

        def body(first: Index, count: int) -> None:
            first_row, row_count = self.input_rows(first, count)

            def block(_: Index, channel: Index) -> None:
                em.loop(row_count, lambda h: self.copy_row(h, border, channel), start=first_row)

                def row(oh: Index) -> None:
                    for ow, tiles, width in columns:

                        def tile(i: Index, ow: int = ow, width: int = width) -> None:
                            self.tile(oh, ow + i * width, width, channel)

                        em.loop(tiles, tile)

                em.loop(count, lambda i: row(first + i))

            self.each_block(block)

        return self.banded(prepare, body)

    def copy_row(self, h: Index, border: int, channel: Index) -> None:
        """Pairs of neighbours of one row; outside the image the zero point is the neighbour."""
        em, lanes, width = self.em, self.lanes, self.kernel.width
        zero = self.tail.input_zero(lanes)
        first = (h + border) * self.full_width + border

        def pixel(w: Index) -> Expr:
            source = load(self.x, [h * width + w, channel], lanes)
            return cast(source, "int32", lanes)

        def store(w: Index, left: Expr, right: Expr) -> None:
            pair = left + right * splat(_HIGH, lanes, "int32")
            em.store(self.image, [first + w], pair, 1)

        if border:
            store(-1, zero, pixel(0))
        em.loop(width - 1, lambda w: store(w, pixel(w), pixel(w + 1)))
        store(width - 1, pixel(width - 1), zero)

    def tile(self, oh: Index, ow: Index, width: int, channel: Index) -> None:
        kernel, em, lanes, dot = self.kernel, self.em, self.lanes, WidenedDot()
        stride, group = kernel.stride, WidenedDot.group
        sums = [em.register(lanes, "int32") for _ in range(width)]
        for total in sums:
            em.store(total, [0], load(self.start, [channel], lanes), lanes)

        def window_row(kh: Index) -> None:
            first = (oh * stride + kh) * self.full_width + ow * stride
            weights = [
                self.weight.load([kh, g, channel * group], lanes * group)
                for g in range(self.groups)
            ]
            for dx in range((width - 1) * stride + kernel.kernel):
                reached = [(t, *divmod(dx - t * stride, group)) for t in range(width)]
                reached = [(t, g, odd) for t, g, odd in reached if 0 <= g < self.groups and not odd]
                if not reached:
                    continue
                pair = em.let(load(self.image, [first + dx], 1))
                for t, g, _ in reached:
                    old = load(sums[t], [0], lanes)
                    em.store(sums[t], [0], dot.accumulate(old, pair, weights[g], lanes), lanes)

        em.loop(kernel.kernel, window_row)
        pixel = oh * kernel.out_width + ow
        self.store([(pixel + t, total) for t, total in enumerate(sums)], channel)


class InterleavedCode(DepthwiseCode):
    """Integers with VNNI or sdot: the four bytes of a lane are four horizontally adjacent pixels.

    Each block of channels is copied once with a border of the zero point, so that four pixels of
    a block are consecutive bytes, a vector of them: one load and one permutation give the operand,
    and it serves every window row that covers it. A tile is some output rows of one or two columns.
    """

    def build(self) -> Any:
        kernel, em, lanes, dot = self.kernel, self.em, self.lanes, integer_dot(self.isa)
        k = kernel.kernel
        self.groups = -(-k // PIXELS)
        self.arguments((self.blocks, k, self.groups, lanes * PIXELS), dot, "int32")
        border = k // 2
        self.full_width = kernel.width + 2 * border
        # The last operand of a row reaches beyond the window: those taps are zero.
        pixels = (kernel.height + 2 * border) * self.full_width + self.groups * PIXELS - k
        size = (kernel.height, kernel.width)

        def zero(count: int) -> Expr:
            return dot.convert(cast(self.tail.input_zero(count), "uint8", count), count)

        columns = row_runs(kernel.out_width, min(_TILE_COLUMNS, kernel.out_width))

        def prepare() -> None:
            self.image = em.scratch((pixels * lanes,), dot.activation_dtype)
            fill_border(em, self.image, size, lanes, border, zero)

        def body(first: Index, count: int) -> None:
            rows = self.input_rows(first, count)

            def block(j: Index, channel: Index) -> None:
                copy_inside(em, self.image, self.x, size, channel, lanes, border, rows, dot)
                for start_row, row_tiles, height in row_runs(
                    count, even_parts(count, _TILE_ROWS)[0]
                ):

                    def row(i: Index, start_row: int = start_row, height: int = height) -> None:
                        for first_column, column_tiles, width in columns:

                            def tile(
                                c: Index, start: int = first_column, width: int = width
                            ) -> None:
                                oh, ow = first + start_row + i * height, start + c * width
                                self.tile(oh, ow, height, width, j, channel)

                            em.loop(column_tiles, tile)

                    em.loop(row_tiles, row)

            self.each_block(block)

        return self.banded(prepare, body)

    def tile(
        self, oh: Index, ow: Index, height: int, width: int, block: Index, channel: Index
    ) -> None:
        kernel, em, lanes, dot = self.kernel, self.em, self.lanes, integer_dot(self.isa)
        k, stride = kernel.kernel, kernel.stride
        sums = [[em.register(lanes, "int32") for _ in range(width)] for _ in range(height)]
        for line in sums:
            for total in line:
                em.store(total, [0], load(self.start, [channel], lanes), lanes)
        weights = [
            [self.weight.load([block, kh, g, 0], lanes * PIXELS) for g in range(self.groups)]
            for kh in range(k)
        ]
        for dy in range((height - 1) * stride + k):
            reached = [(r, dy - r * stride) for r in range(height)]
            reached = [(r, kh) for r, kh in reached if 0 <= kh < k]
            for t in range(width) if reached else ():
                for g in range(self.groups):
                    pixel = (oh * stride + dy) * self.full_width + (ow + t) * stride
                    at = (pixel + g * PIXELS) * lanes
                    four = em.let(load(self.image, [at], lanes * PIXELS))
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
