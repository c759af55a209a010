"""The code of `compilers.kernels.winograd`: transforms of tiles around 16 matrix products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tvm import tirx

from compilers.kernels.emitter import Emitter, Expr, Index, broadcast, load, splat
from compilers.kernels.epilogue import Cell, EpilogueCode
from compilers.kernels.lookahead import FAR_BYTES, fetch_part
from compilers.kernels.tiling import (
    Block,
    BlockRun,
    block_runs,
    channel_blocks,
    matrix_tile,
    row_runs,
    thread_chunks,
)
from compilers.kernels.winograd import IN, OUT, PRODUCTS

if TYPE_CHECKING:
    from compilers.kernels.conv import Conv
    from compilers.targets import Isa

_WEIGHT_BYTES = 1 << 20
"""Weights that stay in a second-level cache while bands pass over them."""

_BAND_BYTES, _ONLY_BAND_BYTES = 256 << 10, 640 << 10
"""Transformed input of a band: beside such weights, and with more weights, which each band reads
from afar."""


@dataclass(frozen=True, slots=True)
class _Run:
    """`count` neighbouring tiles from `first`, along one axis, of which the same pixels exist."""

    first: int
    count: int
    present: tuple[bool, ...]


def _runs(tiles: int, exists: Callable[[int, int], bool], pixels: int) -> list[_Run]:
    """Tiles along one axis; `exists(tile, pixel)` tells which of the `pixels` of a tile exist."""
    runs: list[_Run] = []
    for tile in range(tiles):
        present = tuple(exists(tile, pixel) for pixel in range(pixels))
        if runs and runs[-1].present == present:
            runs[-1] = _Run(runs[-1].first, runs[-1].count + 1, present)
        else:
            runs.append(_Run(tile, 1, present))
    return runs


def _band_rows(total: int, most: int, chunks: int, price: float) -> int:
    """Rows of a band, at most `most`: even shares for `chunks`, few bands, no odd one.

    A band costs as much as `price` rows, the code of an odd band as much as half a row.
    """

    def cost(rows: int) -> float:
        bands = -(-total // rows)
        longest = min(-(-bands // chunks) * rows, total)
        return longest + price * bands + (0.5 if total % rows else 0.0)

    return min(range(1, most + 1), key=cost)


class WinogradCode:
    """Emits one `Conv`: bands of tile rows; in each the input's transform, products, the output's.

    Groups of output vectors are outside the 16 products, so that one group's products stay in the
    cache until they are transformed back.
    """

    def __init__(self, kernel: Conv, isa: Isa) -> None:
        self.kernel = kernel
        self.isa = isa
        self.em = Emitter()
        self.tile_rows = -(-kernel.out_height // OUT)
        self.tile_columns = -(-kernel.out_width // OUT)

    def build(self) -> Any:
        kernel, em, isa = self.kernel, self.em, self.isa
        lanes = isa.vector_lanes
        self.blocks = channel_blocks(kernel.out_channels, lanes)
        count, depth = len(self.blocks), kernel.in_channels
        self.x = em.argument("x", kernel.input_shape)
        residual = None
        if kernel.residual is not None:
            residual = em.argument("residual", kernel.output_shape, kernel.residual)
        self.weight = em.argument("weight", (PRODUCTS, count, depth, lanes))
        self.start = em.argument("start", (count * lanes,))
        self.tail = EpilogueCode(em, kernel.epilogue, count * lanes, lanes, residual)
        self.out = em.argument("out", kernel.output_shape, kernel.output_dtype)

        row_bytes = PRODUCTS * self.tile_columns * depth * 4
        cycles = PRODUCTS * self.tile_rows * self.tile_columns * depth * count / 2
        chunks = thread_chunks(isa, cycles, self.tile_rows)
        weight_bytes = PRODUCTS * count * lanes * depth * 4
        near = weight_bytes <= _WEIGHT_BYTES
        self.far = weight_bytes >= FAR_BYTES
        limit = _BAND_BYTES if near else _ONLY_BAND_BYTES
        most = min(max(1, limit // row_bytes), self.tile_rows)
        # Many bands are divided among the threads; of few, the work inside.
        divided = -(-self.tile_rows // most) >= 2 * chunks
        rows = _band_rows(self.tile_rows, most, chunks if divided else 1, 0.05 if near else 1.0)
        band_runs = row_runs(self.tile_rows, rows)
        counts = [count for _, count, _ in band_runs]

        def chunk(index: Index) -> None:
            self.scratch(rows)
            parts = em.parts(counts, index, chunks if divided else 1)
            for (first, _, height), (start, count) in zip(band_runs, parts, strict=True):

                def band(i: Index, first: int = first, height: int = height) -> None:
                    self.band(first + i * height, height, 1 if divided else chunks)

                em.loop(count, band, start=start)

        em.parallel(chunks if divided else 1, chunk)
        return em.function(kernel.symbol(isa))

    def scratch(self, rows: int) -> None:
        """The transformed input of a band of tile rows."""
        self.tiles = rows * self.tile_columns
        # One more tile: a power of two between the 16 places would map them to one cache set.
        shape = (PRODUCTS, self.tiles + 1, self.kernel.in_channels)
        self.transformed = self.em.scratch(shape)

    def band(self, first: Index, rows: int, chunks: int) -> None:
        """`rows` rows of tiles from `first`, the work divided into `chunks`."""
        em = self.em
        size = matrix_tile(rows * self.tile_columns, len(self.blocks), self.isa.vector_registers)
        groups = block_runs(self.blocks, size.vectors)
        counts = [run.count for run in groups]

        def transform(index: Index) -> None:
            start, count = em.share(rows, index, chunks)
            self.transform_input(first + start, count, start)

        def multiply(index: Index) -> None:
            width = max(run.width for run in groups)
            products = em.scratch((PRODUCTS, self.tiles, width * self.isa.vector_lanes))
            parts = em.parts(counts, index, chunks)
            for run, (start, count) in zip(groups, parts, strict=True):
                body = partial(self.group, products, first, rows, size.rows, run)
                em.loop(count, body, start=start)

        em.parallel(chunks, transform)
        em.parallel(chunks, multiply)

    def transform_input(self, first: Index, count: Index, place: Index) -> None:
        """B^T d B for `count` rows of tiles from `first`, stored from row `place` of the band."""
        kernel, em = self.kernel, self.em
        row_runs_ = _runs(
            self.tile_rows, lambda t, i: 0 <= OUT * t - kernel.border + i < kernel.height, IN
        )
        column_runs_ = _runs(
            self.tile_columns, lambda t, j: 0 <= OUT * t - kernel.border + j < kernel.width, IN
        )
        parts = em.clip(first, count, [run.count for run in row_runs_])
        for rows, (start, extent) in zip(row_runs_, parts, strict=True):

            def row(r: Index, rows: _Run = rows) -> None:
                tile_row = rows.first + r
                line = (place + tile_row - first) * self.tile_columns
                for columns in column_runs_:

                    def column(c: Index, columns: _Run = columns) -> None:
                        tile_column = columns.first + c
                        corner = (OUT * tile_row - kernel.border) * kernel.width
                        corner = corner + OUT * tile_column - kernel.border
                        body = partial(
                            self.transform_tile, corner, line + tile_column, rows, columns
                        )
                        em.pieces(kernel.in_channels, self.isa.vector_lanes, body)

                    em.loop(columns.count, column)

            em.loop(extent, row, start=start)

    def transform_tile(
        self, corner: Index, tile: Index, rows: _Run, columns: _Run, channel: Index, lanes: int
    ) -> None:
        """One 4x4 tile of some channels; pixels outside the image are zero."""
        em = self.em
        zero = splat(0.0, lanes)
        pixels = [
            [
                em.let(load(self.x, [corner + i * self.kernel.width + j, channel], lanes))
                if rows.present[i] and columns.present[j]
                else zero
                for j in range(IN)
            ]
            for i in range(IN)
        ]

        def transform(a: Expr, b: Expr, c: Expr, d: Expr) -> list[Expr]:
            return [em.let(a - c), em.let(b + c), em.let(c - b), em.let(b - d)]

        half = [transform(*(pixels[i][j] for i in range(IN))) for j in range(IN)]
        for i in range(IN):
            for j, value in enumerate(transform(*(half[j][i] for j in range(IN)))):
                em.store(self.transformed, [i * IN + j, tile, channel], value, lanes)

    def group(
        self, products: Any, first: Index, rows: int, limit: int, run: BlockRun, index: Index
    ) -> None:
        """All products of one group of output vectors, and their way back to pixels."""
        em = self.em
        blocks = self.blocks[run.first : run.first + run.width]
        shift = index * run.width

        runs = row_runs(rows * self.tile_columns, limit)
        parts = sum(tiles for _, tiles, _ in runs) * self.kernel.in_channels

        def product(position: Index) -> None:
            fetch = self.fetch(position, blocks, shift, parts) if self.far else None
            before = 0
            for start, tiles, height in runs:

                def tile(
                    i: Index, start: int = start, height: int = height, before: int = before
                ) -> None:
                    first = (before + i) * self.kernel.in_channels
                    ahead = None if fetch is None else lambda k: fetch(first + k)
                    tile_ = start + i * height
                    self.multiply(products, position, tile_, height, blocks, shift, ahead)

                em.loop(tiles, tile)
                before += tiles

        em.loop(PRODUCTS, product)
        self.transform_output(products, first, rows, blocks, shift)

    def fetch(
        self, position: Index, blocks: list[Block], shift: Index, parts: int
    ) -> Callable[[Index], None]:
        """Emits one of the `parts` of fetching the weights of the product after this one."""
        em, depth, lanes = self.em, self.kernel.in_channels, self.isa.vector_lanes
        following = position + 1
        wrapped = tirx.truncmod(following, PRODUCTS)
        block = blocks[0].index + shift + tirx.truncdiv(following, PRODUCTS) * len(blocks)
        start = em.let((wrapped * len(self.blocks) + block) * depth * lanes)
        size = len(blocks) * depth * lanes
        return lambda part: fetch_part(em, self.weight, start, size, part, parts)

    def multiply(
        self,
        products: Any,
        position: Index,
        tile: Index,
        rows: int,
        blocks: list[Block],
        shift: Index,
        ahead: Callable[[Index], None] | None,
    ) -> None:
        """A register tile of one of the 16 products: `rows` tiles times `blocks`.

        `ahead(k)` fetches at step `k` what is needed later.
        """
        em = self.em
        sums = [[em.register(b.lanes) for b in blocks] for _ in range(rows)]
        for line in sums:
            for block, total in zip(blocks, line, strict=True):
                em.store(total, [0], splat(0.0, block.lanes), block.lanes)

        def step(k: Index) -> None:
            weights = [
                em.let(load(self.weight, [position, b.index + shift, k, 0], b.lanes))
                for b in blocks
            ]
            for i, line in enumerate(sums):
                value = em.let(load(self.transformed, [position, tile + i, k], 1))
                for block, total, weight in zip(blocks, line, weights, strict=True):
                    new = load(total, [0], block.lanes) + broadcast(value, block.lanes) * weight
                    em.store(total, [0], new, block.lanes)
            if ahead is not None:
                ahead(k)

        em.loop(self.kernel.in_channels, step)
        for i, line in enumerate(sums):
            for j, (block, total) in enumerate(zip(blocks, line, strict=True)):
                place = [position, tile + i, j * self.isa.vector_lanes]
                em.store(products, place, load(total, [0], block.lanes), block.lanes)

    def transform_output(
        self, products: Any, first: Index, rows: int, blocks: list[Block], shift: Index
    ) -> None:
        """A^T m A, the bias and the epilogue, for `rows` rows of tiles from `first`."""
        kernel, em = self.kernel, self.em
        row_runs_ = _runs(self.tile_rows, lambda t, i: OUT * t + i < kernel.out_height, OUT)
        column_runs_ = _runs(self.tile_columns, lambda t, j: OUT * t + j < kernel.out_width, OUT)
        parts = em.clip(first, rows, [run.count for run in row_runs_])
        for rows_, (start, extent) in zip(row_runs_, parts, strict=True):

            def row(r: Index, rows_: _Run = rows_) -> None:
                tile_row = rows_.first + r
                line = (tile_row - first) * self.tile_columns
                for columns in column_runs_:

                    def column(c: Index, columns: _Run = columns) -> None:
                        tile_column = columns.first + c
                        pixel = OUT * (tile_row * kernel.out_width + tile_column)
                        pixels = [
                            (i, j, pixel + i * kernel.out_width + j)
                            for i in range(OUT)
                            for j in range(OUT)
                            if rows_.present[i] and columns.present[j]
                        ]
                        self.restore(products, line + tile_column, pixels, blocks, shift)

                    em.loop(columns.count, column)

            em.loop(extent, row, start=start)

    def restore(
        self,
        products: Any,
        tile: Index,
        pixels: list[tuple[int, int, Index]],
        blocks: list[Block],
        shift: Index,
    ) -> None:
        """The (row, column, output pixel) of one tile that exist, in all `blocks`."""
        em, lanes_ = self.em, self.isa.vector_lanes

        def transform(a: Expr, b: Expr, c: Expr, d: Expr) -> list[Expr]:
            return [em.let(a + b + c), em.let(b - c - d)]

        found: dict[tuple[int, int], list[Expr]] = {}
        for index, block in enumerate(blocks):
            n = block.lanes
            values = [
                [em.let(load(products, [i * IN + j, tile, index * lanes_], n)) for j in range(IN)]
                for i in range(IN)
            ]
            half = [transform(*(values[i][j] for i in range(IN))) for j in range(IN)]
            start = em.let(load(self.start, [block.channel + shift * lanes_], n))
            for i in range(OUT):
                for j, value in enumerate(transform(*(half[j][i] for j in range(IN)))):
                    found.setdefault((i, j), []).append(em.let(value + start))
        cells = [
            Cell(pixel, block.channel + shift * lanes_, block.lanes, block.valid, value, index > 0)
            for i, j, pixel in pixels
            for index, (block, value) in enumerate(zip(blocks, found[i, j], strict=True))
        ]
        self.tail.store(self.out, cells)
