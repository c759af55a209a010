"""Tiles cover every row, column and channel exactly once, and fit the registers."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from compilers.kernels.tiling import (
    block_runs,
    channel_blocks,
    column_runs,
    even_parts,
    matrix_tile,
    out_size,
    row_runs,
)

SIZES = st.integers(1, 200)


@given(total=SIZES, limit=st.integers(1, 20))
def test_even_parts_add_up_and_differ_by_one(total: int, limit: int) -> None:
    parts = even_parts(total, limit)
    assert sum(parts) == total
    assert max(parts) <= limit
    assert max(parts) - min(parts) <= 1
    assert len(parts) == -(-total // limit)


@given(total=SIZES, size=st.integers(1, 20))
def test_row_runs_cover_every_row_once(total: int, size: int) -> None:
    rows = [
        first + tile * height + row
        for first, tiles, height in row_runs(total, size)
        for tile in range(tiles)
        for row in range(height)
    ]
    assert rows == list(range(total))


@given(channels=st.integers(1, 300), lanes=st.sampled_from([8, 16]), limit=st.integers(1, 4))
def test_blocks_cover_every_channel_once(channels: int, lanes: int, limit: int) -> None:
    blocks = channel_blocks(channels, lanes)
    covered = []
    for run in block_runs(blocks, limit):
        for group in range(run.count):
            members = blocks[run.first : run.first + run.width]
            for place, block in enumerate(members):
                actual = blocks[run.first + group * run.width + place]
                # The loop uses the first group's lanes, shifted.
                assert (actual.lanes, actual.valid) == (block.lanes, block.valid)
                covered += range(actual.channel, actual.channel + actual.valid)
    assert covered == list(range(channels))
    assert all(block.valid <= block.lanes <= lanes for block in blocks)


@given(
    width=st.integers(1, 60),
    kernel=st.sampled_from([1, 2, 3, 5, 7]),
    stride=st.sampled_from([1, 2, 3]),
    data=st.data(),
    limit=st.integers(1, 14),
)
def test_column_runs_cover_the_row_and_know_what_is_inside(
    width: int, kernel: int, stride: int, data: st.DataObject, limit: int
) -> None:
    padding = data.draw(st.integers(0, kernel // 2))
    assume(width + 2 * padding >= kernel)
    out = out_size(width, kernel, stride, padding)
    covered = []
    for run in column_runs(out, width, kernel, stride, padding, limit):
        for tile in range(run.tiles):
            columns = [run.first + tile * run.width + t for t in range(run.width)]
            covered += columns
            taps = [
                c * stride - padding + kw for c in columns for kw in range(kernel)
            ]  # fmt: skip
            assert run.inside == (min(taps) >= 0 and max(taps) < width)
    assert covered == list(range(out))


@pytest.mark.parametrize("registers", [16, 32])
@pytest.mark.parametrize("cost", [1.0, 2.0])
@given(rows=SIZES, blocks=st.integers(1, 16))
def test_matrix_tiles_fit_the_registers(
    rows: int, blocks: int, registers: int, cost: float
) -> None:
    tile = matrix_tile(rows, blocks, registers, cost)
    assert tile.rows * tile.vectors + tile.vectors + 1 <= registers
    assert tile.rows <= rows
    assert tile.vectors <= blocks
