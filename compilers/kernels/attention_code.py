"""The code of `Attention`: scores, exponentials and value product of one tile of queries at a time.

The keys of one head are transposed once into a panel whose rows are vectors of keys. A tile of
queries is scaled (and rotated) into a scratch, multiplied with the panel, and its scores stay in
a scratch that fits the first-level cache until the product with the values has used them. Powers
are taken to base 2: log2(e) is part of the queries' scale. The sum of a row divides its output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from tvm import tirx

from compilers.kernels.emitter import (
    Buffer,
    Emitter,
    Expr,
    Index,
    broadcast,
    load,
    maximum,
    splat,
)
from compilers.kernels.epilogue import Cell, EpilogueCode
from compilers.kernels.products import product, transposed
from compilers.kernels.softmax import LOG2_E, MASKED, exponentials
from compilers.kernels.tiling import (
    Block,
    block_runs,
    channel_blocks,
    even_parts,
    matrix_tile,
    row_runs,
    thread_chunks,
)

if TYPE_CHECKING:
    from compilers.kernels.attention import Attention
    from compilers.targets import Isa


_SOFTMAX_ROWS = 4
"""Rows whose exponentials are interleaved."""

_EXP_CYCLES = 8.0
"""Of one vector of scores."""


class AttentionCode:
    """Emits one `Attention`."""

    def __init__(self, kernel: Attention, isa: Isa) -> None:
        self.kernel = kernel
        self.isa = isa
        self.em = Emitter()
        self.lanes = isa.vector_lanes
        self.key_blocks = [
            Block(i, first, self.lanes, min(self.lanes, kernel.keys - first))
            for i, first in enumerate(range(0, kernel.keys, self.lanes))
        ]
        self.value_blocks = channel_blocks(kernel.value_dim, self.lanes)

    def build(self) -> Any:
        kernel, em = self.kernel, self.em
        self.q = em.argument("q", (kernel.queries, kernel.q_stride))
        self.k = em.argument("k", (kernel.keys, kernel.k_stride))
        self.v = em.argument("v", (kernel.keys, kernel.v_stride))
        self.cos: Buffer | None = None
        self.sin: Buffer | None = None
        self.bias: Buffer | None = None
        if kernel.rope:
            self.cos = em.argument("cos", (kernel.queries, kernel.head_dim))
            self.sin = em.argument("sin", (kernel.queries, kernel.head_dim))
        if kernel.bias:
            self.bias = em.argument("bias", (kernel.heads, kernel.queries, kernel.keys))
        self.tail = EpilogueCode(em, kernel.epilogue, 0, self.lanes)
        self.out = em.argument("out", kernel.output_shape, kernel.output_dtype)
        registers = self.isa.vector_registers
        # Two vectors: tall tiles enter few loops, and wider ones gain nothing.
        self.tile = matrix_tile(kernel.queries, min(2, len(self.value_blocks)), registers)
        self.score_width = min(len(self.key_blocks), (registers - 1) // (self.tile.rows + 1), 4)
        self.chunks = thread_chunks(self.isa, self.cycles, self.tiles)
        em.parallel(self.chunks, self.work)
        return em.function(kernel.symbol(self.isa))

    @property
    def tiles(self) -> int:
        """Tiles of queries of one head."""
        return sum(count for _, count, _ in row_runs(self.kernel.queries, self.tile.rows))

    @property
    def cycles(self) -> float:
        """Estimate of the serial work."""
        kernel = self.kernel
        vectors = kernel.heads * kernel.queries * kernel.keys / self.lanes
        if kernel.causal:
            vectors /= 2
        return vectors * ((kernel.head_dim + kernel.value_dim) / 2 + _EXP_CYCLES)

    def work(self, part: Index) -> None:
        """One thread's part: some heads of the keys, or every so many tiles of all heads."""
        kernel, em, rows = self.kernel, self.em, self.tile.rows
        self.panel = em.scratch((len(self.key_blocks), kernel.head_dim, self.lanes))
        self.query = em.scratch((rows, kernel.head_dim))
        self.scores = em.scratch((rows, len(self.key_blocks) * self.lanes))
        self.factors = em.scratch((rows,))
        shared = kernel.heads // kernel.kv_heads
        whole = kernel.kv_heads % self.chunks == 0
        groups = kernel.kv_heads // self.chunks if whole else kernel.kv_heads

        def group(g: Index) -> None:
            self.pack_keys(g)
            start, step = (0, 1) if whole else (part, self.chunks)
            em.loop(shared, lambda j: self.head(g * shared + j, g, start, step))

        em.loop(groups, group, part * groups if whole else 0)

    def head(self, head: Index, group: Index, start: Index, step: int) -> None:
        """Tiles of queries start, start + step, ... of one head."""
        for first, tiles, rows in row_runs(self.kernel.queries, self.tile.rows):
            count = tiles if step == 1 else _quotient(self.em, step - 1 + tiles - start, step)

            def tile(i: Index, first: int = first, rows: int = rows) -> None:
                _QueryTile(self, head, group, first + (start + i * step) * rows, rows).emit()

            self.em.loop(count, tile)

    def pack_keys(self, group: Index) -> None:
        """panel[b, d, i] = key b * lanes + i, channel d; zeros behind the last key."""
        kernel, em, lanes, size = self.kernel, self.em, self.lanes, self.unit

        def square(b: Index, keys: int, part: int, start: Index, upper: bool) -> None:
            rows = [
                self.rotated(self.k, b * lanes + i, kernel.k_offset, group, start, upper)
                if i < keys
                else splat(0.0, size)
                for i in range(part, part + size)
            ]
            for d, column in enumerate(transposed(em, rows)):
                em.store(self.panel, [b, start + d, part], column, size)

        def block(b: Index, keys: int) -> None:
            for part in range(0, lanes, size):
                self.each_unit(partial(square, b, keys, part))

        em.loop(kernel.keys // lanes, lambda b: block(b, lanes))
        if kernel.keys % lanes:
            block(kernel.keys // lanes, kernel.keys % lanes)

    @property
    def unit(self) -> int:
        """Channels of a head that are handled at a time; of half a head where rope rotates it."""
        rope, dim = self.kernel.rope, self.kernel.head_dim
        sizes = (size for size in (16, 8, 4) if size <= self.lanes)
        return next(size for size in sizes if (dim // 2 % size == 0 if rope else dim >= size))

    def each_unit(self, body: Callable[[Index, bool], None]) -> None:
        """Run `body(first channel, upper half)` over one head; a last unit may overlap another."""
        em, size, dim = self.em, self.unit, self.kernel.head_dim
        if self.kernel.rope:
            units = dim // 2 // size
            em.loop(units, lambda i: body(i * size, False))
            em.loop(units, lambda i: body(i * size + dim // 2, True))
            return
        em.loop(dim // size, lambda i: body(i * size, False))
        if dim % size:
            body(dim - size, False)

    def rotated(
        self, source: Buffer, row: Index, offset: int, head: Index, start: Index, upper: bool
    ) -> Expr:
        """Channels start.. of one row of one head, after the rotary embedding."""
        kernel, em, size = self.kernel, self.em, self.unit
        half = kernel.head_dim // 2
        column = head * kernel.head_dim + offset + start
        value = load(source, [row, column], size)
        if self.cos is None:
            return em.let(value)
        cos, sin = (load(table, [row, start], size) for table in (self.cos, self.sin))
        partner = load(source, [row, column - half if upper else column + half], size)
        return em.let(value * cos + partner * sin if upper else value * cos - partner * sin)


class _QueryTile:
    """Some neighbouring queries of one head."""

    def __init__(
        self, code: AttentionCode, head: Index, group: Index, first: Index, rows: int
    ) -> None:
        self.code = code
        self.em = code.em
        self.head = head
        self.group = group
        self.first = first
        self.rows = rows
        kernel, lanes = code.kernel, code.lanes
        # What the last query of the tile sees.
        self.keys: Index = kernel.keys
        self.vectors: Index = len(code.key_blocks)
        if kernel.causal:
            self.keys = first + rows
            self.vectors = _quotient(code.em, self.keys + (lanes - 1), lanes)

    def emit(self) -> None:
        """Scores, exponentials, product with the values."""
        code, em = self.code, self.em
        self.read_queries()
        if code.kernel.causal:
            self.visible_scores()
        else:
            for run in block_runs(code.key_blocks, code.score_width):
                blocks = code.key_blocks[run.first : run.first + run.width]
                em.loop(run.count, partial(self.score, blocks))

        first = 0
        for count in even_parts(self.rows, _SOFTMAX_ROWS):
            rows = range(first, first + count)
            totals = exponentials(em, code.scores, rows, self.vectors, code.lanes)
            for row, total in zip(rows, totals, strict=True):
                em.store(code.factors, [row], self.numerator() / total, 1)
            first += count
        for run in block_runs(code.value_blocks, code.tile.vectors):
            blocks = code.value_blocks[run.first : run.first + run.width]
            em.loop(run.count, partial(self.values, blocks))

    def visible_scores(self) -> None:
        """The vectors of keys of which some query of the tile sees one."""
        code, em = self.code, self.em
        width = code.score_width
        groups = _quotient(em, self.vectors, width)
        done = groups * width
        em.loop(groups, partial(self.score, code.key_blocks[:width]))

        def single(b: Index) -> None:
            self.score(code.key_blocks[:1], b)

        if width > 1:
            em.loop(self.vectors - done, single, done)

    def numerator(self) -> Expr:
        """1, in the units in which the epilogue expects sums."""
        if self.code.kernel.epilogue.early_steps:
            return self.code.tail.output_steps(1)
        return splat(1.0, 1)

    def read_queries(self) -> None:
        """query[m, d]: the tile's queries, times what makes exponents of the scores."""
        code, kernel, size = self.code, self.code.kernel, self.code.unit
        factor = splat(kernel.scale * LOG2_E, size)

        def row(m: Index) -> None:
            def unit(start: Index, upper: bool) -> None:
                value = code.rotated(
                    code.q, self.first + m, kernel.q_offset, self.head, start, upper
                )
                self.em.store(code.query, [m, start], value * factor, size)

            code.each_unit(unit)

        self.em.loop(self.rows, row)

    def score(self, blocks: Sequence[Block], group: Index) -> None:
        """Scores with some vectors of keys, `group` groups of `blocks` further."""
        code, lanes = self.code, self.code.lanes
        shift = group * len(blocks)
        sums = product(
            self.em,
            self.rows,
            [lanes] * len(blocks),
            code.kernel.head_dim,
            lambda m, d: load(code.query, [m, d], 1),
            lambda b, d: load(code.panel, [blocks[b].index + shift, d, 0], lanes),
        )
        for m, line in enumerate(sums):
            for block, value in zip(blocks, line, strict=True):
                self.store_score(m, block, block.channel + shift * lanes, value)

    def store_score(self, m: int, block: Block, key: Index, value: Expr) -> None:
        """Mask one vector of scores, whose first key is `key`, add the bias, store it."""
        code, em, lanes = self.code, self.em, self.code.lanes
        masked = splat(MASKED, lanes)
        if code.kernel.causal:
            seen = tirx.Ramp(key, 1, lanes) <= broadcast(self.first + m, lanes)
            value = tirx.Select(seen, value, masked)
        elif block.valid < lanes:
            exists = tirx.Ramp(0, 1, lanes) < splat(block.valid, lanes, "int32")
            value = tirx.Select(exists, value, masked)
        em.store(code.scores, [m, key], value, lanes)
        if code.bias is None:
            return

        def add(first: Index, width: int) -> None:
            score = load(code.scores, [m, key + first], width)
            bias = load(code.bias, [self.head, self.first + m, key + first], width)
            score = maximum(score + bias * splat(LOG2_E, width), splat(MASKED, width))
            em.store(code.scores, [m, key + first], score, width)

        em.pieces(block.valid, lanes, add)

    def values(self, blocks: Sequence[Block], group: Index) -> None:
        """Some vectors of the output: exponentials times values, divided by the sums."""
        code, em, kernel = self.code, self.em, self.code.kernel
        shift = group * len(blocks) * code.lanes
        column = self.group * kernel.value_dim + kernel.v_offset + shift
        sums = product(
            em,
            self.rows,
            [block.lanes for block in blocks],
            self.keys,
            lambda m, key: load(code.scores, [m, key], 1),
            lambda b, key: load(code.v, [key, column + blocks[b].channel], blocks[b].lanes),
        )
        cells = []
        for m, line in enumerate(sums):
            factor = em.let(load(code.factors, [m], 1))
            for b, (block, total) in enumerate(zip(blocks, line, strict=True)):
                lanes = block.lanes
                channel = self.head * kernel.value_dim + block.channel + shift
                value = em.let(total * broadcast(factor, lanes))
                cells.append(Cell(self.first + m, channel, lanes, lanes, value, b > 0))
        code.tail.store(code.out, cells)


def _quotient(em: Emitter, value: Index, divisor: int) -> Index:
    """Rounded down, for values >= 0."""
    return value // divisor if isinstance(value, int) else em.let(tirx.truncdiv(value, divisor))
