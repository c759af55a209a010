"""The ways to compute a dense convolution as an implicit matrix product."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any

from compilers.intrinsics import integer_dot
from compilers.kernels.emitter import Emitter, Expr, Index, splat
from compilers.kernels.epilogue import EpilogueCode
from compilers.kernels.gemm import multiply_cost
from compilers.kernels.register_tile import Operands, RegisterTile
from compilers.kernels.tiling import (
    Block,
    ColumnRun,
    Tile,
    block_runs,
    channel_blocks,
    column_runs,
    even_division,
    thread_chunks,
)
from compilers.kernels.window import padded_copy, padded_planes, window_rows

if TYPE_CHECKING:
    from compilers.kernels.conv import Conv
    from compilers.targets import Isa


class ConvCode(ABC):
    """What the variants share: groups of output vectors outside, rows, tiles of columns."""

    def __init__(self, kernel: Conv, isa: Isa, size: Tile | None) -> None:
        self.kernel = kernel
        self.isa = isa
        self.size = size or kernel.candidates(isa)[0]
        self.symbol = kernel.symbol(isa, size)
        self.em = Emitter()
        self.dot = integer_dot(isa) if kernel.input_dtype == "uint8" else None

    def build(self) -> Any:
        kernel, em, isa = self.kernel, self.em, self.isa
        blocks = channel_blocks(kernel.out_channels, isa.vector_lanes)
        self.x = em.argument("x", kernel.input_shape, kernel.input_dtype)
        residual = None
        if kernel.residual is not None:
            residual = em.argument("residual", kernel.output_shape, kernel.residual)
        depth = kernel.kernel**2 * kernel.in_channels
        self.operands = Operands(
            em, len(blocks), depth, isa.vector_lanes, self.dot, kernel.weight_bits
        )
        channels = len(blocks) * isa.vector_lanes
        self.tail = EpilogueCode(em, kernel.epilogue, channels, isa.vector_lanes, residual)
        self.out = em.argument("out", kernel.output_shape, kernel.output_dtype)
        self.prepare()

        columns = self.columns(self.size.rows)
        groups = block_runs(blocks, self.size.vectors)
        group_counts = [run.count for run in groups]
        work = kernel.out_height * kernel.out_width * depth * kernel.out_channels
        cycles = work * multiply_cost(self.dot) / (2 * isa.vector_lanes * self.operands.group)
        by_groups = even_division(sum(group_counts), kernel.out_height, isa.threads)
        counts = group_counts if by_groups else [kernel.out_height]
        chunks = thread_chunks(isa, cycles, sum(counts))

        # Tiles that one thread computes with the same weights.
        self.tiles = kernel.out_height * sum(run.tiles for run in columns)
        self.tiles = self.tiles if by_groups else -(-self.tiles // chunks)

        def chunk(index: Index) -> None:
            part = em.parts(counts, index, chunks)
            group_parts = part if by_groups else [(0, count) for count in group_counts]
            lines = (0, kernel.out_height) if by_groups else part[0]
            for run, (start, count) in zip(groups, group_parts, strict=True):
                members = blocks[run.first : run.first + run.width]
                em.loop(count, partial(self.rows, lines, columns, members), start=start)

        em.parallel(chunks, chunk)
        return em.function(self.symbol)

    def rows(
        self,
        lines: tuple[Index, Index],
        columns: list[ColumnRun],
        blocks: list[Block],
        group: Index,
    ) -> None:
        """Some output rows (first, count) of one group of output vectors."""

        first, count = lines
        tiles_per_row = sum(run.tiles for run in columns)

        def row(oh: Index) -> None:
            taps = self.taps(oh)
            for number, run in enumerate(columns):
                before = sum(run.tiles for run in columns[:number])

                def tile(i: Index, run: ColumnRun = run, before: int = before) -> None:
                    ow = run.first + i * run.width
                    shift = group * len(blocks)
                    turn = ((oh - first) * tiles_per_row + before + i, self.tiles)
                    tile = RegisterTile(
                        self.operands,
                        run.width,
                        blocks,
                        shift,
                        1,
                        turn if self.operands.far else None,
                    )
                    self.reduce(tile, oh, ow, run, taps)
                    pixel = oh * self.kernel.out_width + ow
                    self.tail.store(self.out, tile.cells(lambda t: pixel + t))

                self.em.loop(run.tiles, tile)

        self.em.loop(count, row, start=first)

    @abstractmethod
    def prepare(self) -> None:
        """What happens once, before the loops."""

    @abstractmethod
    def columns(self, limit: int) -> list[ColumnRun]:
        """Tiles of at most `limit` columns that cover an output row."""

    @abstractmethod
    def taps(self, oh: Index) -> tuple[Index, Index]:
        """(first, count) of the window's rows that count at output row `oh`."""

    @abstractmethod
    def reduce(
        self, tile: RegisterTile, oh: Index, ow: Index, run: ColumnRun, taps: tuple[Index, Index]
    ) -> None:
        """The whole sum of one tile: `run.width` output columns from (oh, ow)."""


class ClippedCode(ConvCode):
    """float32 NHWC: nothing is copied, taps outside the image are skipped."""

    def prepare(self) -> None:
        """Nothing."""

    def columns(self, limit: int) -> list[ColumnRun]:
        """Tiles at the sides are special: some of their taps lie outside."""
        kernel = self.kernel
        window = (kernel.kernel, kernel.stride, kernel.border)
        return column_runs(kernel.out_width, kernel.width, *window, limit)

    def taps(self, oh: Index) -> tuple[Index, Index]:
        """Those inside the image."""
        kernel = self.kernel
        window = (kernel.kernel, kernel.stride, kernel.border)
        return window_rows(self.em, oh, kernel.height, *window)

    def reduce(
        self, tile: RegisterTile, oh: Index, ow: Index, run: ColumnRun, taps: tuple[Index, Index]
    ) -> None:
        """Window rows, window columns, channels."""
        kernel, em, operands = self.kernel, self.em, self.operands

        def tap(kh: Index, kw: Index) -> None:
            ih = oh * kernel.stride - kernel.border + kh
            columns = [(ow + t) * kernel.stride - kernel.border + kw for t in range(run.width)]
            present = [run.inside or 0 <= column < kernel.width for column in columns]

            def channel(c: Index) -> None:
                def activation(t: int) -> Expr | None:
                    pixel = ih * kernel.width + columns[t]
                    return operands.activation(self.x, [pixel, c]) if present[t] else None

                tile.step((kh * kernel.kernel + kw) * kernel.in_channels + c, activation)

            if any(present):
                em.loop(kernel.in_channels, channel)

        def window_row(kh: Index) -> None:
            if run.inside:
                em.loop(kernel.kernel, lambda kw: tap(kh, kw))
            else:
                for kw in range(kernel.kernel):
                    tap(kh, kw)

        first, count = taps
        em.loop(count, window_row, start=first)


class BorderedCode(ConvCode):
    """The input with its border in memory, so that no tap lies outside.

    Integers: the border is the zero point, elements are of the dot product's type. A row of the
    window is one stretch of memory: its pixels' channels (NHWC), or its pixels in one channel
    (NCHW, where the rows of all channels follow one another).
    """

    def prepare(self) -> None:
        """Copy the image, unless it can be read where it is."""
        kernel, em = self.kernel, self.em
        border = kernel.border
        self.width = kernel.width + 2 * border
        self.height = kernel.height + 2 * border
        size = (kernel.height, kernel.width, kernel.in_channels)
        dtype = self.dot.activation_dtype if self.dot else kernel.input_dtype
        if border == 0 and dtype == kernel.input_dtype:
            self.source, self.leading = self.x, [0] * (len(kernel.input_shape) - 1)
            return
        self.leading = []
        if kernel.input_layout == "nchw":
            self.source = padded_planes(em, self.x, size, border, lambda n: splat(0.0, n), self.isa)
        elif self.dot:
            self.source = padded_copy(
                em, self.x, size, border, self.tail.input_zero, self.dot, self.isa
            )

    def columns(self, limit: int) -> list[ColumnRun]:
        """All tiles lie inside."""
        kernel = self.kernel
        return column_runs(kernel.out_width, self.width, kernel.kernel, kernel.stride, 0, limit)

    def taps(self, oh: Index) -> tuple[Index, Index]:
        """All."""
        del oh
        return 0, self.kernel.kernel

    def reduce(
        self, tile: RegisterTile, oh: Index, ow: Index, run: ColumnRun, taps: tuple[Index, Index]
    ) -> None:
        """Stretches of memory, and the elements of each."""
        kernel, em, operands = self.kernel, self.em, self.operands
        planar = kernel.input_layout == "nchw"
        pixel = 1 if planar else kernel.in_channels
        steps = kernel.kernel * pixel // operands.group

        def stretch(plane: Index, kh: Index) -> None:
            line = (plane * self.height + oh * kernel.stride + kh) * self.width
            first = (line + ow * kernel.stride) * pixel

            def step(s: Index) -> None:
                def activation(t: int) -> Expr:
                    at = first + t * kernel.stride * pixel + s * operands.group
                    return operands.activation(self.source, [*self.leading, at])

                tile.step((plane * kernel.kernel + kh) * steps + s, activation)

            operands.weight.turns(steps, step)

        first, count = taps
        planes = kernel.in_channels if planar else 1
        em.loop(planes, lambda plane: em.loop(count, partial(stretch, plane), start=first))
