"""Stored tensors and what an operator can read of them: whole tensors, copies, constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compilers.graph import Graph, Op, OpKind, fail
from compilers.views import View

Form = tuple[Sequence[int], Sequence[int]]
"""The axes that a stored tensor's rows count, and those that its columns count."""

MAP: Form = ((0, 2, 3), (1,))
"""[1, C, H, W] as pixels and channels."""


def rows_of(rank: int) -> Form:
    """The last axis as columns, all others as rows."""
    return tuple(range(rank - 1)), (rank - 1,)


class StoredValues:
    """The operators on stored tensors, as far as they are known; `storage` adds one by one.

    Attributes:
        graph: The operator graph.
        ops: See `storage.StoredGraph`; likewise `shapes`, `constants`, `views`.
        rotations: Rotary embeddings by name, which attention applies.
        images: Quantised images by stored tensor, which may have more columns than channels.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.ops: list[Op] = []
        self.shapes: dict[str, tuple[int, ...]] = {graph.input: graph.input_shape}
        self.constants: dict[str, NDArray[Any]] = {}
        self.views = {graph.input: View.of(graph.input, graph.input_shape)}
        self.copies: dict[tuple[View, tuple[int, int]], str] = {}
        self.rotations: dict[str, Op] = {}
        self.images: dict[str, View] = {}

    def value(self, op: Op, name: str) -> View:
        """Where a value lies, for an operator that reads its elements as they are."""
        view = self.views.get(name)
        if view is None:
            raise fail(op, f"{op.kind} of a constant")
        if view.rotation is not None:
            raise fail(op, f"{op.kind} of a rotary embedding, which only attention reads")
        return view

    def shape_of(self, name: str) -> tuple[int, ...]:
        view = self.views.get(name)
        return self.graph.constants[name].shape if view is None else view.shape

    def emit(self, op: Op, inputs: Sequence[str], rows: int, columns: int, **changes: Any) -> str:
        stored = replace(op, inputs=tuple(inputs), shape=(rows, columns), **changes)
        self.ops.append(stored)
        self.shapes[stored.name] = (rows, columns)
        return stored.name

    def write(
        self, op: Op, inputs: Sequence[str], form: Form | None = None, **changes: Any
    ) -> None:
        """Store the result of `op` in `form`; by default pixels and channels, or the last axis."""
        axes = form or (MAP if len(op.shape) == 4 else rows_of(len(op.shape)))
        rows, columns = (prod(op.shape[axis] for axis in part) for part in axes)
        self.emit(op, inputs, rows, columns, **changes)
        order = [*axes[0], *axes[1]]
        view = View.of(op.name, [op.shape[axis] for axis in order])
        self.views[op.name] = view.permute([order.index(axis) for axis in range(len(order))])

    def write_like(self, op: Op, view: View, inputs: Sequence[str], **changes: Any) -> None:
        """Store the result of `op` as `view`, which is whole, stores its operand."""
        rows, columns = self.shapes[view.base]
        self.emit(op, inputs, rows, columns, **changes)
        self.views[op.name] = replace(view, base=op.name)

    def operand(self, op: Op, name: str, form: Form) -> str:
        """The stored tensor of a value in `form`, copied into it if need be."""
        if name in self.graph.constants:
            return self._constant(name, form)
        view = self.value(op, name)
        rows, columns = (prod(view.shape[axis] for axis in axes) for axes in form)
        digits = view.factors([*form[0], *form[1]])
        dense = ((rows * columns, 1),) if rows * columns > 1 else ()
        # Other numbers of rows and columns would do as well, but kernels check their shapes.
        if view.offset == 0 and digits == dense and self.shapes[view.base] == (rows, columns):
            return view.base
        return self.copy(op, view.permute([*form[0], *form[1]]), rows, columns)

    def _constant(self, name: str, form: Form) -> str:
        array = self.graph.constants[name]
        rows, columns = (prod(array.shape[axis] for axis in axes) for axes in form)
        return self.add_constant(name, array.transpose([*form[0], *form[1]]).reshape(rows, columns))

    def add_constant(self, name: str, array: NDArray[Any]) -> str:
        stored = np.ascontiguousarray(array, np.float32)
        name = f"{name}.{len(self.constants)}"
        self.constants[name] = stored
        self.shapes[name] = stored.shape
        return name

    def copy(self, op: Op, view: View, rows: int, columns: int) -> str:
        """Copy a view, its axes in this order, into a tensor of its own."""
        key = (view, (rows, columns))
        if key not in self.copies:
            digits = view.factors(range(len(view.axes)))
            self.copies[key] = self.emit(
                op, (view.base,), rows, columns, name=f"{view.base}.copy{len(self.copies)}",
                kind=OpKind.COPY, params={},
                attributes={
                    "sizes": tuple(size for size, _ in digits),
                    "strides": tuple(stride for _, stride in digits),
                    "offset": view.offset,
                },
            )  # fmt: skip
        return self.copies[key]

    def whole(self, op: Op, name: str) -> View:
        """A value as a view of a whole stored tensor."""
        view = self.value(op, name)
        size = prod(self.shapes[view.base])
        if view.is_whole(size) and len(self.shapes[view.base]) == 2:
            return view
        return self._standard(op, view)

    def _standard(self, op: Op, view: View) -> View:
        """A copy of a view in the form in which results are stored."""
        rows, columns = MAP if len(view.axes) == 4 else rows_of(len(view.axes))
        order = [*rows, *columns]
        sizes = [view.shape[axis] for axis in order]
        base = self.copy(
            op, view.permute(order), prod(sizes[: len(rows)]), prod(sizes[len(rows) :])
        )
        return View.of(base, sizes).permute([order.index(axis) for axis in range(len(order))])

    def row_major(self, op: Op, view: View) -> View:
        """A copy of a view whose every axis has one digit."""
        rows, columns = (prod(view.shape[a] for a in axes) for axes in rows_of(len(view.axes)))
        return View.of(self.copy(op, view, rows, columns), view.shape)

    def constant_like(self, name: str, view: View, array: NDArray[Any] | None = None) -> str:
        """A constant in the order in which `view` is stored: [rows, columns], or one row."""
        given = self.graph.constants[name] if array is None else array
        sizes, order = view.storage_order()
        full: NDArray[Any] = np.broadcast_to(given, view.shape).reshape(sizes)
        full = full.transpose(order).reshape(self.shapes[view.base])
        return self.add_constant(name, full[:1] if (full == full[:1]).all() else full)

    def value_like(self, op: Op, other: View, view: View) -> str:
        """The stored tensor of `other` in the order in which `view` is stored, or its one row."""
        rows, columns = self.shapes[view.base]
        sizes, order = view.storage_order()
        split = other.expand(view.shape).reshape(sizes)
        if split is None:
            split = self._standard(op, other.expand(view.shape)).reshape(sizes)
        assert split is not None
        digits = split.permute(order).factors(range(len(sizes)))
        whole = ((rows * columns, 1),) if rows * columns > 1 else ()
        if other.offset == 0:
            if digits == whole and self.shapes[other.base] == (rows, columns):
                return other.base
            row = split.permute(order).reshape((rows, columns))
            repeated = View(other.base, (((rows, 0),), *View.of("", (columns,)).axes))
            if row == repeated and self.shapes[other.base] == (1, columns):
                return other.base
        return self.copy(op, split.permute(order), rows, columns)
