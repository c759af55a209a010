"""A small builder of TIR functions: loops, vector values, register accumulators.

The templates unroll in Python and loop in TIR. A register accumulator is a `local` buffer of one
vector, which LLVM promotes to a register; a `let` names a value that is used more than once.
TVM expressions are untyped here (`Expr`): TVM's Python package has no annotations to check.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np
from tvm import tirx

Expr: TypeAlias = Any
Index: TypeAlias = Any  # int or an int32 expression
Buffer: TypeAlias = Any

MAX_STACK_BYTES = 32768
"""Larger scratch buffers come from TVM's workspace pool, by a call per execution."""

# Without it TVM turns even the accumulators into calls that allocate and free workspace.
_ON_STACK = {"disable_lower_builtin": tirx.const(1, "bool")}


class Emitter:
    """Collects the parameters and statements of one function in program order."""

    def __init__(self) -> None:
        self._blocks: list[list[Any]] = [[]]
        self._parameters: list[Buffer] = []
        self._names = 0

    def _name(self, prefix: str) -> str:
        self._names += 1
        return f"{prefix}{self._names}"

    def argument(self, name: str, shape: Sequence[int], dtype: str = "float32") -> Buffer:
        """Declare the next tensor argument."""
        buffer = tirx.decl_buffer(tuple(shape), dtype, name=name)
        self._parameters.append(buffer)
        return buffer

    def register(self, lanes: int, dtype: str = "float32") -> Buffer:
        """An accumulator of one vector that later code loads and stores."""
        buffer = tirx.decl_buffer((lanes,), dtype, name=self._name("acc"), scope="local")
        self.emit(tirx.AllocBuffer(buffer, _ON_STACK))
        return buffer

    def scratch(self, shape: Sequence[int], dtype: str = "float32") -> Buffer:
        """A workspace; declare it outside loops. Elements may be vectors (`int32x8`)."""
        buffer = tirx.decl_buffer(tuple(shape), dtype, name=self._name("scratch"))
        element, _, lanes = dtype.partition("x")
        size = prod(shape) * np.dtype(element).itemsize * int(lanes or 1)
        self.emit(tirx.AllocBuffer(buffer, _ON_STACK if size <= MAX_STACK_BYTES else None))
        return buffer

    def emit(self, statement: Any) -> None:
        """Append a statement to the innermost open loop."""
        self._blocks[-1].append(statement)

    def let(self, value: Expr) -> Expr:
        """Evaluate once, here; the result may be used many times. A Python integer stays one."""
        if isinstance(value, int):
            return value
        variable = tirx.Var(self._name("v"), value.ty)
        self.emit(tirx.Bind(variable, value))
        return variable

    def loop(self, extent: Index, body: Callable[[Index], None], start: Index = 0) -> None:
        """Run `body(i)` for `i` in `start .. start + extent`; short constant loops vanish."""
        if isinstance(extent, int) and extent <= 1:
            if extent == 1:
                body(start)
            return
        self._loop(start, extent, tirx.ForKind.SERIAL, body)

    def parallel(self, chunks: int, body: Callable[[Index], None]) -> None:
        """Run `body(chunk)` for every chunk, each on a thread of its own; one chunk runs here.

        Every chunk costs a closure, so there should be as many as threads, with the serial loops
        inside (`share` divides their range). Chunks write different elements, and a workspace
        that is declared inside belongs to one chunk. Not to be nested.
        """
        if chunks == 1:
            body(0)
            return
        self._loop(0, chunks, tirx.ForKind.PARALLEL, body)

    def share(self, total: int, chunk: Index, chunks: int) -> tuple[Index, Index]:
        """(first, count) of the part of `total` iterations that falls to one of `chunks`."""
        if chunks == 1:
            return 0, total
        first = self.let(tirx.truncdiv(chunk * total, chunks))
        return first, self.let(tirx.truncdiv((chunk + 1) * total, chunks) - first)

    def parts(self, counts: Sequence[int], chunk: Index, chunks: int) -> list[tuple[Index, Index]]:
        """(first, count) of what falls to one of `chunks` of each of several loops.

        The loops stand one behind the other; all their iterations together are divided evenly,
        and those of one chunk are consecutive.
        """
        if chunks == 1:
            return [(0, count) for count in counts]
        start, size = self.share(sum(counts), chunk, chunks)
        found = []
        for count in counts:
            first = self.let(tirx.min(tirx.max(start, 0), count))
            found.append((first, self.let(tirx.min(tirx.max(start + size, 0), count) - first)))
            start = start - count
        return found

    def _loop(self, start: Index, extent: Index, kind: Any, body: Callable[[Index], None]) -> None:
        variable = tirx.Var(self._name("i"), "int32")
        self._blocks.append([])
        body(variable)
        statements = self._blocks.pop()
        self.emit(tirx.For(variable, start, extent, kind, _sequence(statements)))

    def pieces(self, total: int, width: int, body: Callable[[Index, int], None]) -> None:
        """Run `body(first, count)` over `total` elements: `width` at a time, then powers of two."""
        self.loop(total // width, lambda i: body(i * width, width))
        done = total // width * width
        while done < total:
            piece = 1 << ((total - done).bit_length() - 1)
            body(done, piece)
            done += piece

    def store(self, buffer: Buffer, index: Sequence[Index], value: Expr, lanes: int) -> None:
        """Store a vector at `index` and the following elements of the last axis."""
        self.emit(tirx.BufferStore(buffer, value, _vector_index(index, lanes)))

    def store_first(
        self, buffer: Buffer, index: Sequence[Index], value: Expr, lanes: int, count: int
    ) -> None:
        """Store only the first `count` of `lanes` elements, in pieces of powers of two."""

        def store(first: Index, piece: int) -> None:
            part = value if piece == lanes else shuffle([value], range(first, first + piece))
            self.store(buffer, [*index[:-1], index[-1] + first], part, piece)

        self.pieces(count, lanes, store)

    def function(self, symbol: str) -> Any:
        """Close the function."""
        (statements,) = self._blocks
        function = tirx.PrimFunc(self._parameters, _sequence(statements))
        return function.with_attr("global_symbol", symbol).with_attr("tirx.noalias", True)


def _sequence(statements: list[Any]) -> Any:
    return tirx.SeqStmt(statements) if len(statements) > 1 else statements[0]


def _vector_index(index: Sequence[Index], lanes: int) -> list[Index]:
    last = index[-1] if lanes == 1 else tirx.Ramp(index[-1], 1, lanes)
    return [*index[:-1], last]


def load(buffer: Buffer, index: Sequence[Index], lanes: int) -> Expr:
    """`lanes` consecutive elements of the last axis."""
    return tirx.BufferLoad(buffer, _vector_index(index, lanes))


def broadcast(value: Expr, lanes: int) -> Expr:
    """A vector of one scalar expression; itself when there is one lane."""
    return tirx.Broadcast(value, lanes) if lanes > 1 else value


def splat(value: float, lanes: int, dtype: str = "float32") -> Expr:
    """A vector of one constant; a scalar when there is one lane."""
    return broadcast(tirx.const(value, dtype), lanes)


def cast(value: Expr, dtype: str, lanes: int) -> Expr:
    """Convert elements, keeping their values; rounds towards zero from float to integer."""
    return tirx.Cast(f"{dtype}x{lanes}" if lanes > 1 else dtype, value)


def reinterpret(value: Expr, dtype: str, lanes: int) -> Expr:
    """The same bits as another type."""
    return tirx.reinterpret(f"{dtype}x{lanes}" if lanes > 1 else dtype, value)


def shuffle(vectors: Sequence[Expr], indices: Sequence[int]) -> Expr:
    """Elements `indices` of the concatenation of `vectors`."""
    return tirx.Shuffle(list(vectors), list(indices))


def maximum(a: Expr, b: Expr) -> Expr:
    """Element-wise maximum; of two Python integers, one."""
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    return tirx.max(a, b)


def minimum(a: Expr, b: Expr) -> Expr:
    """Element-wise minimum; of two Python integers, one."""
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    return tirx.min(a, b)
