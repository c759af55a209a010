"""Matrix products and transposes of what lies in tensors, by tiles in registers.

`register_tile` multiplies with packed weights; here both operands are whatever two functions load.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from compilers.kernels.emitter import Emitter, Expr, Index, broadcast, load, shuffle, splat
from compilers.kernels.tiling import MIN_CHAINS


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

    def whole(m: int, b: int) -> Expr:
        value = load(sums[0][m][b], [0], lanes[b])
        for chain in range(1, chains):
            value = value + load(sums[chain][m][b], [0], lanes[b])
        return em.let(value)

    return [[whole(m, b) for b in range(len(lanes))] for m in range(rows)]


def transposed(em: Emitter, rows: list[Expr]) -> list[Expr]:
    """The columns of n vectors of n elements, n a power of two, by interleaving halves."""
    n = len(rows)
    for _ in range(n.bit_length() - 1):
        order = [i + part for i in range(n) for part in (0, n)]
        rows = [
            em.let(shuffle([rows[i // 2], rows[i // 2 + n // 2]], order[i % 2 * n :][:n]))
            for i in range(n)
        ]
    return rows
