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
    shuffle,
    splat,
)
from compilers.kernels.epilogue import Cell, EpilogueCode
from compilers.kernels.softmax import LOG2_E, MASKED, exponentials
from compilers.kernels.tiling import (
    MIN_CHAINS,
    Block,
    block_runs,
    channel_blocks,
    matrix_tile,
    row_runs,
)

if TYPE_CHECKING:
    from compilers.kernels.attention import Attention
    from compilers.targets import Isa


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
        self.code = EpilogueCode(em, kernel.epilogue, 0, self.lanes)
        self.out = em.argument("out", kernel.output_shape, kernel.output_dtype)
        self.tile = matrix_tile(kernel.queries, len(self.value_blocks), self.isa.vector_registers)
        self.score_width = min(
            len(self.key_blocks), (self.isa.vector_registers - 1) // (self.tile.rows + 1), 4
        )
        self.work(0, kernel.kv_heads)
        return em.function(kernel.symbol(self.isa))

    def work(self, first: Index, count: Index) -> None:
        """Some heads of keys, with all their query heads."""
        kernel, em = self.kernel, self.em
        rows = self.tile.rows
        self.panel = em.scratch((len(self.key_blocks), kernel.head_dim, self.lanes))
        self.query = em.scratch((rows, kernel.head_dim))
        self.scores = em.scratch((rows, len(self.key_blocks) * self.lanes))
        self.sums = em.scratch((rows,))
        shared = kernel.heads // kernel.kv_heads

        def group(g: Index) -> None:
            self.pack_keys(g)
            em.loop(shared, lambda j: self.head(g * shared + j, g))

        em.loop(count, group, first)

    def head(self, head: Index, group: Index) -> None:
        """All queries of one head."""
        for first, tiles, rows in row_runs(self.kernel.queries, self.tile.rows):

            def tile(i: Index, first: int = first, rows: int = rows) -> None:
                _QueryTile(self, head, group, first + i * rows, rows).emit()

            self.em.loop(tiles, tile)

    def pack_keys(self, group: Index) -> None:
        """panel[b, d, i] = key b * lanes + i, channel d; zeros behind the last key."""
        kernel, em, lanes = self.kernel, self.em, self.lanes
        size = self.unit
        starts = list(range(0, kernel.head_dim - size + 1, size))
        if kernel.head_dim % size:
            starts.append(kernel.head_dim - size)

        def block(b: Index, keys: int) -> None:
            for start in starts:
                for part in range(0, lanes, size):
                    rows = [
                        self.rotated(self.k, b * lanes + i, kernel.k_offset, group, start, size)
                        if i < keys
                        else splat(0.0, size)
                        for i in range(part, part + size)
                    ]
                    for d, column in enumerate(_transposed(em, rows)):
                        em.store(self.panel, [b, start + d, part], column, size)

        em.loop(kernel.keys // lanes, lambda b: block(b, lanes))
        if kernel.keys % lanes:
            block(kernel.keys // lanes, kernel.keys % lanes)

    @property
    def unit(self) -> int:
        """Channels of a head that are handled at a time; the two halves of rope have no overlap."""
        part = self.kernel.head_dim // (2 if self.kernel.rope else 1)
        if self.lanes == 16 and part >= 16 and not (self.kernel.rope and part % 16):
            return 16
        return 8

    def rotated(
        self, source: Buffer, row: Index, offset: int, head: Index, start: int, lanes: int
    ) -> Expr:
        """Channels start.. of one row of one head, after the rotary embedding."""
        kernel, em = self.kernel, self.em
        dim, half = kernel.head_dim, kernel.head_dim // 2
        column = head * dim + offset
        value = load(source, [row, column + start], lanes)
        if self.cos is None:
            return em.let(value)
        cos, sin = (load(table, [row, start], lanes) for table in (self.cos, self.sin))
        if start < half:
            partner = splat(0.0, lanes) - load(source, [row, column + start + half], lanes)
        else:
            partner = load(source, [row, column + start - half], lanes)
        return em.let(value * cos + partner * sin)


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

        def row(m: Index) -> None:
            total = exponentials(em, code.scores, m, self.vectors, code.lanes)
            em.store(code.sums, [m], self.numerator() / total, 1)

        em.loop(self.rows, row)
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
        """1, in steps of the output if it is uint8."""
        if self.code.kernel.output_dtype == "uint8":
            return self.code.code.output_steps(1)
        return splat(1.0, 1)

    def read_queries(self) -> None:
        code, kernel = self.code, self.code.kernel
        factor = kernel.scale * LOG2_E
        size = code.unit

        def row(m: Index) -> None:
            def channels(start: int) -> None:
                value = code.rotated(
                    code.q, self.first + m, kernel.q_offset, self.head, start, size
                )
                self.em.store(code.query, [m, start], value * splat(factor, size), size)

            for start in range(0, kernel.head_dim - size + 1, size):
                channels(start)
            if kernel.head_dim % size:
                channels(kernel.head_dim - size)

        self.em.loop(self.rows, row)

    def score(self, blocks: Sequence[Block], group: Index) -> None:
        """Scores with some vectors of keys, `group` groups of `blocks` further."""
        code, em, lanes = self.code, self.em, self.code.lanes
        shift = group * len(blocks)
        sums = product(
            em,
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
        """Mask, bias."""
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
        """Some vectors of the output: scores times values, divided by the sums."""
        code, em, kernel = self.code, self.em, self.code.kernel
        shift = group * len(blocks)
        start = self.group * kernel.value_dim + kernel.v_offset + shift * code.lanes
        sums = product(
            em,
            self.rows,
            [block.lanes for block in blocks],
            self.keys,
            lambda m, key: load(code.scores, [m, key], 1),
            lambda b, key: load(code.v, [key, start + blocks[b].channel], blocks[b].lanes),
        )
        cells = []
        for m, line in enumerate(sums):
            factor = em.let(load(code.sums, [m], 1))
            for b, (block, total) in enumerate(zip(blocks, line, strict=True)):
                channel = self.head * kernel.value_dim + block.channel + shift * code.lanes
                value = em.let(total * broadcast(factor, block.lanes))
                cells.append(Cell(self.first + m, channel, block.lanes, block.lanes, value, b > 0))
        code.code.store(code.out, cells)


def product(
    em: Emitter,
    rows: int,
    lanes: Sequence[int],
    steps: Index,
    left: Callable[[int, Index], Expr],
    right: Callable[[int, Index], Expr],
) -> list[list[Expr]]:
    """sum over k of left(row, k) * right(vector, k), a tile of accumulators in registers.

    Args:
        em: where the code goes.
        rows: scalars of one step.
        lanes: of each vector of one step.
        steps: length of the sum; partial sums hide latency if it is a constant.
        left: (row, k) -> scalar.
        right: (vector, k) -> vector.
    """
    count = rows * len(lanes)
    chains = 1
    if isinstance(steps, int) and count < MIN_CHAINS:
        chains = min(-(-MIN_CHAINS // count), steps)
    sums = [[[em.register(n) for n in lanes] for _ in range(rows)] for _ in range(chains)]
    for lines in sums:
        for line in lines:
            for n, total in zip(lanes, line, strict=True):
                em.store(total, [0], splat(0.0, n), n)

    def step(k: Index, chain: int) -> None:
        vectors = [em.let(right(b, k)) for b in range(len(lanes))]
        for m, line in enumerate(sums[chain]):
            scalar = em.let(left(m, k))
            for n, total, vector in zip(lanes, line, vectors, strict=True):
                em.store(total, [0], load(total, [0], n) + broadcast(scalar, n) * vector, n)

    def turn(k: Index) -> None:
        for chain in range(chains):
            step(k * chains + chain, chain)

    if chains == 1:
        em.loop(steps, partial(step, chain=0))
    else:
        em.loop(steps // chains, turn)
        for k in range(steps // chains * chains, steps):
            step(k, k % chains)

    def total(m: int, b: int) -> Expr:
        value = load(sums[0][m][b], [0], lanes[b])
        for chain in range(1, chains):
            value = value + load(sums[chain][m][b], [0], lanes[b])
        return em.let(value)

    return [[total(m, b) for b in range(len(lanes))] for m in range(rows)]


def _quotient(em: Emitter, value: Index, divisor: int) -> Index:
    """Rounded down, for values >= 0."""
    return value // divisor if isinstance(value, int) else em.let(tirx.truncdiv(value, divisor))


def _transposed(em: Emitter, rows: list[Expr]) -> list[Expr]:
    """The columns of n vectors of n elements, n a power of two, by interleaving halves."""
    n = len(rows)
    for _ in range(n.bit_length() - 1):
        order = [i + part for i in range(n) for part in (0, n)]
        rows = [
            em.let(shuffle([rows[i // 2], rows[i // 2 + n // 2]], order[i % 2 * n :][:n]))
            for i in range(n)
        ]
    return rows
