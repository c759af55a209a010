"""What all ways to compute a depthwise convolution share, and the one for float32."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from compilers.intrinsics import IntegerDot
from compilers.kernels.emitter import (
    Buffer,
    Emitter,
    Index,
    load,
    maximum,
    minimum,
)
from compilers.kernels.epilogue import Cell, EpilogueCode
from compilers.kernels.nibbles import WeightArgument
from compilers.kernels.tiling import (
    ColumnRun,
    Tile,
    column_runs,
    even_parts,
    row_runs,
    thread_chunks,
)
from compilers.kernels.window import window_rows

if TYPE_CHECKING:
    from compilers.kernels.depthwise import Depthwise
    from compilers.targets import Isa

_BAND_BYTES = 1 << 19
"""Input that stays in a second-level cache while every block of channels passes over it."""


class DepthwiseCode(ABC):
    """What the three variants share: blocks of channels outside, rows, tiles of columns.

    A last block that is not full overlaps its neighbour, so that every vector is full. Threads
    divide the rows: divided channels of a pixel would share cache lines.
    """

    def __init__(self, kernel: Depthwise, isa: Isa, size: Tile | None) -> None:
        self.kernel = kernel
        self.isa = isa
        self.size = size or self.tiles(kernel, isa)[0]
        self.symbol = kernel.symbol(isa, size)
        self.em = Emitter()
        self.lanes = kernel.lanes(isa)
        self.blocks = -(-kernel.channels // self.lanes)

    @staticmethod
    @abstractmethod
    def tiles(kernel: Depthwise, isa: Isa) -> tuple[Tile, ...]:
        """See `Kernel.candidates`."""

    @abstractmethod
    def build(self) -> Any:
        """The function."""

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
        return em.function(self.symbol)

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

    @staticmethod
    def tiles(kernel: Depthwise, isa: Isa) -> tuple[Tile, ...]:
        """Accumulators, the window row's weights and one pixel must fit the registers."""
        return even_column_tiles(kernel.out_width, isa.vector_registers - kernel.kernel - 2)

    def build(self) -> Any:
        kernel = self.kernel
        self.arguments((kernel.kernel**2, kernel.channels), None)

        def body(first: Index, count: int) -> None:
            self.each_block(lambda _, channel: self.rows(first, count, channel))

        return self.banded(lambda: None, body)

    def rows(self, first: Index, count: int, channel: Index) -> None:
        kernel, em = self.kernel, self.em
        window = (kernel.kernel, kernel.stride, kernel.kernel // 2)
        runs = column_runs(kernel.out_width, kernel.width, *window, self.size.columns)

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


def even_column_tiles(columns: int, registers: int) -> tuple[Tile, ...]:
    """Parts of an output row that it divides into evenly, for at most 8 and at most 4 columns."""
    limits = (min(most, registers) for most in (8, 4))
    tiles = (Tile(1, columns=even_parts(columns, limit)[0]) for limit in limits)
    return tuple(dict.fromkeys(tiles))
