"""Depthwise convolutions of integers: x86 without VNNI multiplies pairs, VNNI and sdot fours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compilers.intrinsics import WidenedDot, integer_dot, interleave_pixels
from compilers.kernels.depthwise_code import DepthwiseCode, even_column_tiles
from compilers.kernels.emitter import Expr, Index, cast, load, splat
from compilers.kernels.tiling import Tile, even_parts, row_runs
from compilers.kernels.window import copy_inside, fill_border

if TYPE_CHECKING:
    from compilers.kernels.depthwise import Depthwise
    from compilers.targets import Isa

PIXELS = 4
"""Horizontally adjacent pixels that one vpdpbusd or sdot multiplies per lane."""

_HIGH = 1 << 16
"""Shifts a value into the upper half of a 32-bit lane."""

_TILES = (Tile(4, columns=2), Tile(4, columns=1), Tile(2, columns=2))
"""Output pixels whose windows share operands with fours, the usual ones first."""


class PairedCode(DepthwiseCode):
    """Integers on x86 without VNNI: vpmaddwd multiplies two horizontally adjacent pixels per lane.

    Each block of channels is copied once with a border of the zero point, every pixel as 16 bits
    beside its right neighbour, so that one load gives the operand of two taps. Accumulators are
    int32 from the bias on: products fit 16 bits, sums of two fit 32.
    """

    @staticmethod
    def tiles(kernel: Depthwise, isa: Isa) -> tuple[Tile, ...]:
        """Accumulators, the window row's weights, a pair and a sum must fit the registers."""
        groups = -(-kernel.kernel // WidenedDot.group)
        return even_column_tiles(kernel.out_width, isa.vector_registers - groups - 3)

    def build(self) -> Any:
        kernel, em, lanes = self.kernel, self.em, self.lanes
        k, border = kernel.kernel, kernel.kernel // 2
        self.groups = -(-k // WidenedDot.group)
        shape = (k, self.groups, kernel.channels * WidenedDot.group)
        self.arguments(shape, WidenedDot(), "int32")
        self.full_width = kernel.width + 2 * border
        pixels = (kernel.height + 2 * border) * self.full_width
        size = (kernel.height, kernel.width)
        columns = row_runs(kernel.out_width, self.size.columns)

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

    @staticmethod
    def tiles(kernel: Depthwise, isa: Isa) -> tuple[Tile, ...]:
        """No larger than the image."""
        del isa
        height, width = kernel.out_height, kernel.out_width
        fitted = (Tile(min(t.rows, height), columns=min(t.columns, width)) for t in _TILES)
        return tuple(dict.fromkeys(fitted))

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

        columns = row_runs(kernel.out_width, self.size.columns)

        def prepare() -> None:
            self.image = em.scratch((pixels * lanes,), dot.activation_dtype)
            fill_border(em, self.image, size, lanes, border, zero)

        def body(first: Index, count: int) -> None:
            rows = self.input_rows(first, count)

            def block(j: Index, channel: Index) -> None:
                copy_inside(em, self.image, self.x, size, channel, lanes, border, rows, dot)
                for start_row, row_tiles, height in row_runs(
                    count, even_parts(count, self.size.rows)[0]
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
