"""Operators that modules write out by hand, put together again: RMSNorm and rotary embeddings."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compilers.graph import Graph, Op, OpKind


def compose(graph: Graph) -> Graph:
    """The same graph with composite operators, and without operators whose result nobody reads.

    - x * rsqrt(mean(x * x, last axis) + epsilon) [* weight] becomes `rms_norm`;
    - x * cos + concat(-x2, x1) * sin, x1 and x2 the halves of the last axis, becomes `rope`.
    """
    composer = _Composer(_live(graph))
    return _live(replace(graph, ops=tuple(map(composer.composed, composer.graph.ops))))


def _live(graph: Graph) -> Graph:
    needed = {graph.output}
    for op in reversed(graph.ops):
        if op.name in needed:
            needed.update(op.inputs)
    constants = {name: array for name, array in graph.constants.items() if name in needed}
    ops = tuple(op for op in graph.ops if op.name in needed)
    return replace(graph, ops=ops, constants=constants)


class _Composer:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.ops = graph.producer()
        self.shapes = graph.shapes()
        self.uses = Counter(name for op in graph.ops for name in dict.fromkeys(op.inputs))

    def composed(self, op: Op) -> Op:
        """The composite that ends in `op`, or `op` itself."""
        found = None
        if op.kind is OpKind.MUL:
            found = self._weighted_norm(op) or self._norm(op)
        elif op.kind is OpKind.ADD:
            found = self._rope(op)
        return found or op

    def _inner(self, name: str, kind: OpKind) -> Op | None:
        """The producer of a value that nothing else reads, if it is of this kind."""
        op = self.ops.get(name)
        return op if op is not None and op.kind is kind and self.uses[name] == 1 else None

    def _constant(self, op: Op) -> tuple[str, NDArray[Any]] | None:
        """The value and the constant that a binary operator combines."""
        for value, other in (op.inputs, op.inputs[::-1]):
            if other in self.graph.constants and value not in self.graph.constants:
                return value, self.graph.constants[other]
        return None

    def _norm(self, op: Op) -> Op | None:
        for source, factor in (op.inputs, op.inputs[::-1]):
            root = self._inner(factor, OpKind.RSQRT)
            added = root and self._inner(root.inputs[0], OpKind.ADD)
            parts = added and self._constant(added)
            mean = parts and self._inner(parts[0], OpKind.MEAN)
            square = mean and self._inner(mean.inputs[0], OpKind.MUL)
            if not (parts and mean and square) or square.inputs != (source, source):
                continue
            rank, epsilon = len(op.shape), parts[1]
            kept = len(mean.shape) == rank and mean.attributes["axes"] == (rank - 1,)
            if kept and epsilon.size == 1:
                return replace(
                    op,
                    kind=OpKind.RMS_NORM,
                    inputs=(source,),
                    params={"weight": np.ones(op.shape[-1], np.float32)},
                    attributes={"epsilon": float(epsilon.reshape(()))},
                )
        return None

    def _weighted_norm(self, op: Op) -> Op | None:
        parts = self._constant(op)
        inner = parts and self._inner(parts[0], OpKind.MUL)
        norm = inner and self._norm(inner)
        if not (parts and norm) or parts[1].shape != (op.shape[-1],):
            return None
        return replace(norm, name=op.name, site=op.site, params={"weight": parts[1]})

    def _rope(self, op: Op) -> Op | None:
        for plain, turned in (op.inputs, op.inputs[::-1]):
            first, second = (self._inner(name, OpKind.MUL) for name in (plain, turned))
            cosine, sine = first and self._constant(first), second and self._constant(second)
            halves = sine and self._inner(sine[0], OpKind.CONCAT)
            if not (cosine and sine and halves) or not self._is_rotated(halves, cosine[0]):
                continue
            tables = [_table(array, op.shape) for array in (cosine[1], sine[1])]
            if tables[0] is None or tables[1] is None or tables[0][0] != tables[1][0]:
                continue
            return replace(
                op,
                kind=OpKind.ROPE,
                inputs=(cosine[0],),
                params={"cos": tables[0][1], "sin": tables[1][1]},
                attributes={"axis": tables[0][0]},
            )
        return None

    def _is_rotated(self, op: Op, source: str) -> bool:
        """Whether a concatenation is (-x2, x1) of `source`."""
        last = len(op.shape) - 1
        if len(op.inputs) != 2 or op.attributes["axis"] != last or op.shape[last] % 2:
            return False
        negated = self._inner(op.inputs[0], OpKind.NEG)
        pieces = [self.ops.get(negated.inputs[0]) if negated else None, self.ops.get(op.inputs[1])]
        half = op.shape[last] // 2
        return all(
            piece is not None
            and piece.kind is OpKind.SLICE
            and piece.inputs == (source,)
            and piece.attributes == {"axis": last, "start": start}
            and piece.shape[last] == half
            for piece, start in zip(pieces, (half, 0), strict=True)
        )


def _table(array: NDArray[Any], shape: tuple[int, ...]) -> tuple[int, NDArray[Any]] | None:
    """Token axis and [T, d] form of a factor that broadcasts to `shape`; None without such."""
    full = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    varying = [axis for axis, size in enumerate(full.shape[:-1]) if size > 1]
    if full.shape[-1] != shape[-1] or len(varying) > 1:
        return None
    # One token: any axis will do.
    axis = varying[0] if varying else len(shape) - 2
    return axis, np.ascontiguousarray(full.reshape(-1, shape[-1]).astype(np.float32))
