"""How iterations fall to chunks; the code itself is tested with the kernels."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from compilers.kernels.emitter import Emitter


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    cuts=st.lists(st.integers(0, 45), max_size=4),
)
def test_clipped_loops_run_every_iteration_once_in_order(
    counts: list[int], cuts: list[int]
) -> None:
    total = sum(counts)
    bounds = [0, *sorted(min(cut, total) for cut in cuts), total]
    seen = [
        (part, i)
        for start, end in pairwise(bounds)
        for part, (first, count) in enumerate(Emitter().clip(start, end - start, counts))
        for i in range(first, first + count)
    ]
    assert seen == [(part, i) for part, count in enumerate(counts) for i in range(count)]


def test_one_chunk_runs_in_place() -> None:
    em = Emitter()
    assert em.share(7, 0, 1) == (0, 7)
    assert em.parts([3, 4], 0, 1) == [(0, 3), (0, 4)]
    seen: list[int] = []
    em.parallel(1, seen.append)
    assert seen == [0]
