"""Deterministic choice of register tiles, and how they cover rows, columns and windows.

No search: a tile is the cheapest under a small cost model of one reduction step. A processor of
the kind meant here starts per cycle two vector multiply-adds and two loads, and a multiply-add
takes four to five cycles, so a tile needs at least eight independent accumulators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compilers.targets import Isa

MIN_CHAINS = 8
"""Independent multiply-adds that hide the latency of one."""

_TILE_OVERHEAD = 12.0
"""Cycles to enter a tile and loop over it, beyond its arithmetic."""

_CANDIDATES, _WORTH = 3, 1.6
"""Most tiles that are worth a measurement, and their cost relative to the cheapest."""


_PARALLEL_CYCLES = 20_000.0
"""Serial work, estimated, from which handing a part of it to another thread pays."""


def thread_chunks(isa: Isa, cycles: float, most: int) -> int:
    """Into how many parts a kernel divides its outer loop: its threads', or 1 for little work.

    Args:
        isa: where it runs, with how many threads.
        cycles: estimate of the kernel's serial work at full speed.
        most: iterations of the outer loop.
    """
    return min(isa.threads, most) if cycles >= _PARALLEL_CYCLES else 1


def even_division(first: int, second: int, threads: int) -> bool:
    """Whether to divide the first of two nested loops over threads, rather than the second.

    The first, which costs less to divide, unless its largest part is clearly further from even.
    """

    def excess(iterations: int) -> float:
        return -(-iterations // threads) * threads / iterations

    return excess(first) <= 1.05 * excess(second)


@dataclass(frozen=True, slots=True)
class Block:
    """One vector of output channels.

    Attributes:
        index: its place in the packed weights.
        channel: first output channel.
        lanes: vector length that is computed.
        valid: channels that exist and are stored; the rest is padding.
    """

    index: int
    channel: int
    lanes: int
    valid: int


def channel_blocks(channels: int, vector_lanes: int) -> list[Block]:
    """Cover `channels` by full vectors and one shorter one (8 of 16 lanes if that suffices)."""
    blocks = []
    for index, channel in enumerate(range(0, channels, vector_lanes)):
        valid = min(vector_lanes, channels - channel)
        lanes = min(vector_lanes, 8) if valid <= 8 else vector_lanes
        blocks.append(Block(index, channel, lanes, valid))
    return blocks


def even_parts(total: int, limit: int) -> list[int]:
    """Split `total` into the fewest parts of at most `limit`, as equal as possible, descending."""
    count = -(-total // limit)
    size, larger = divmod(total, count)
    return [size + 1] * larger + [size] * (count - larger)


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """A register tile: at most `rows` x `columns` pixels times `vectors` vectors of channels.

    Templates that see pixels as one sequence count them as rows.
    """

    rows: int
    vectors: int = 1
    columns: int = 1


def row_runs(total: int, size: int) -> list[tuple[int, int, int]]:
    """(first, tiles, rows per tile) covering `total` rows: full tiles, then the rest."""
    runs = [(0, total // size, size)] if total >= size else []
    return [*runs, (total - total % size, 1, total % size)] if total % size else runs


def matrix_tile(rows: int, blocks: int, registers: int, multiply_cost: float = 1.0) -> Tile:
    """The register tile of a [rows, K] x [K, blocks * lanes] product. Args: `matrix_tiles`."""
    return matrix_tiles(rows, blocks, registers, multiply_cost)[0]


@cache
def matrix_tiles(
    rows: int, blocks: int, registers: int, multiply_cost: float = 1.0, weight_cost: float = 0.0
) -> tuple[Tile, ...]:
    """Different register tiles of a [rows, K] x [K, blocks * lanes] product, cheapest first.

    The cheapest of each width, as far as the cost model does not rule it out.

    Args:
        rows: pixels.
        blocks: vectors of output channels.
        registers: vector registers of the instruction set.
        multiply_cost: vector instructions per multiply-add (2 for vpmaddwd and vpaddd).
        weight_cost: vector instructions that make a vector of weights after its load.
    """

    def step(m: int, n: int) -> float:
        """Cycles of one reduction step of an m x n tile."""
        arithmetic = (m * n * multiply_cost + n * weight_cost) / 2
        loads = (m + n) / 2
        issue = (m * n * multiply_cost + m + n + 3) / 6
        latency = 4.0
        return max(arithmetic, loads, issue, latency)

    def cost(m: int, n: int) -> float:
        columns = even_parts(blocks, n)
        return sum(
            tiles * (step(height, width) + _TILE_OVERHEAD / 32)
            for _, tiles, height in row_runs(rows, m)
            for width in columns
        )

    spare = 2 if multiply_cost > 1 else 1
    best = [
        min((cost(m, n), m * n, m, Tile(m, n)) for m in range(1, min(14, rows) + 1)
            if m * n + n + spare <= registers)
        for n in range(1, min(4, blocks) + 1)
    ]  # fmt: skip
    best.sort()
    worth = [entry[-1] for entry in best if entry[0] <= _WORTH * best[0][0]]
    return tuple(worth[:_CANDIDATES])


@dataclass(frozen=True, slots=True)
class BlockRun:
    """`count` equal groups of neighbouring blocks, `width` blocks each."""

    first: int
    count: int
    width: int


def block_runs(blocks: Sequence[Block], limit: int) -> list[BlockRun]:
    """Group blocks into at most `limit` wide groups; equal groups of full vectors form one run.

    A run of several groups is a loop, so all its blocks must have the same lanes.
    """
    full = sum(block.lanes == block.valid == blocks[0].lanes for block in blocks)
    runs: list[BlockRun] = []
    first = 0
    for width in even_parts(len(blocks), limit):
        last = runs[-1] if runs else None
        uniform = first + width <= full
        if last is not None and uniform and last.width == width:
            runs[-1] = BlockRun(last.first, last.count + 1, width)
        else:
            runs.append(BlockRun(first, 1, width))
        first += width
    return runs


@dataclass(frozen=True, slots=True)
class ColumnRun:
    """`tiles` neighbouring tiles of `width` output columns, starting at `first`.

    `inside` means that no tap of any of them leaves the image; other runs have one tile.
    """

    first: int
    tiles: int
    width: int
    inside: bool


def column_runs(
    out_width: int, in_width: int, kernel: int, stride: int, padding: int, limit: int
) -> list[ColumnRun]:
    """Cover one output row by tiles of at most `limit` columns.

    Args:
        out_width: output columns.
        in_width: input columns, including a border that lies in memory.
        kernel: side of the window.
        stride: step of the window.
        padding: columns beside those on the left, and as many on the right as the output needs.
        limit: most columns of a tile.
    """
    runs: list[ColumnRun] = []
    first = 0
    for width in even_parts(out_width, limit):
        left = first * stride - padding
        right = left + (width - 1) * stride + kernel - 1
        inside = left >= 0 and right < in_width
        last = runs[-1] if runs else None
        if last is not None and inside and last.inside and last.width == width:
            runs[-1] = ColumnRun(last.first, last.tiles + 1, width, True)
        else:
            runs.append(ColumnRun(first, 1, width, inside))
        first += width
    return runs


def out_size(in_size: int, kernel: int, stride: int, padding: int) -> int:
    """Pixels of one side after a window; below 1 where the window does not fit."""
    return (in_size + 2 * padding - kernel) // stride + 1
