"""Softmax over rows, and the exponentials that it shares with attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import e, log2
from typing import TYPE_CHECKING, Any, ClassVar

from compilers.kernels.base import DType, LayerParams, RowwiseKernel
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
from compilers.kernels.tiling import thread_chunks
from compilers.kernels.vector_math import exp2, reduce_lanes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tvm import tirx

    from compilers.targets import Isa

LOG2_E = log2(e)

MASKED = -1e30
"""Score of what takes no part: finite, so that a row of nothing else is averaged, not NaN."""


@dataclass(frozen=True)
class Softmax(RowwiseKernel):
    """`out[i, :] = exp(x[i, :]) / sum(exp(x[i, :]))`, float32.

    Arguments of the function: x, output.
    """

    kind: ClassVar[str] = "softmax"
    input_dtype: ClassVar[DType] = "float32"
    output_dtype: ClassVar[DType] = "float32"

    def constants(self, isa: Isa, params: LayerParams) -> tuple[NDArray[Any], ...]:
        """See `Kernel.constants`: there are none."""
        del isa, params
        return ()

    def prim_func(self, isa: Isa) -> tirx.PrimFunc:
        """See `Kernel.prim_func`."""
        em, lanes = Emitter(), isa.vector_lanes
        x = em.argument("x", self.input_shape)
        out = em.argument("out", self.output_shape)
        vectors = -(-self.channels // lanes)
        chunks = thread_chunks(isa, self.rows * vectors * 12.0, self.rows)

        def chunk(part: Index) -> None:
            scores = em.scratch((1, vectors * lanes))
            first, count = em.share(self.rows, part, chunks)

            def row(i: Index) -> None:
                def read(channel: Index, width: int) -> None:
                    value = load(x, [i, channel], width) * splat(LOG2_E, width)
                    em.store(scores, [0, channel], value, width)

                def write(channel: Index, width: int) -> None:
                    value = load(scores, [0, channel], width) * broadcast(inverse, width)
                    em.store(out, [i, channel], value, width)

                # The last vector's rest first: the row then overwrites its beginning.
                em.store(scores, [0, (vectors - 1) * lanes], splat(MASKED, lanes), lanes)
                em.pieces(self.channels, lanes, read)
                (total,) = exponentials(em, scores, [0], vectors, lanes)
                inverse = em.let(splat(1.0, 1) / total)
                em.pieces(self.channels, lanes, write)

            em.loop(count, row, first)

        em.parallel(chunks, chunk)
        return em.function(self.symbol(isa))


def exponentials(
    em: Emitter, scores: Buffer, rows: Sequence[Index], vectors: Index, lanes: int
) -> list[Expr]:
    """Replace some rows of scores s by 2^(s - max(s)), and return the sum of each.

    Several rows at a time hide the latency of one row's reductions.

    Args:
        em: where the code goes.
        scores: float32 [rows, at least vectors * lanes].
        rows: which rows.
        vectors: how many vectors of them count.
        lanes: vector length.
    """
    tops = [em.register(lanes) for _ in rows]
    totals = [em.register(lanes) for _ in rows]
    for row, top, total in zip(rows, tops, totals, strict=True):
        em.store(top, [0], load(scores, [row, 0], lanes), lanes)
        em.store(total, [0], splat(0.0, lanes), lanes)

    def compare(i: Index) -> None:
        for row, top in zip(rows, tops, strict=True):
            value = maximum(load(top, [0], lanes), load(scores, [row, i * lanes], lanes))
            em.store(top, [0], value, lanes)

    em.loop(vectors - 1, compare, 1)
    highest = [reduce_lanes(em, load(top, [0], lanes), lanes, maximum) for top in tops]

    def power(i: Index) -> None:
        for row, high, total in zip(rows, highest, totals, strict=True):
            score = load(scores, [row, i * lanes], lanes)
            value = exp2(em, score - broadcast(high, lanes), lanes)
            em.store(scores, [row, i * lanes], value, lanes)
            em.store(total, [0], load(total, [0], lanes) + value, lanes)

    em.loop(vectors, power)
    return [reduce_lanes(em, load(t, [0], lanes), lanes, lambda a, b: a + b) for t in totals]
