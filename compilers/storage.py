"""Where every value of an operator graph is stored: views vanish, operands become whole tensors.

A kernel writes one row-major tensor [rows, columns]: pixels and channels, tokens and features.
Reshapes, permutations, slices and repetitions are views of such tensors (`views`). An operator
that reads a view takes the stored tensor itself where the view is one in the form that its kernel
reads, or (attention) columns of one; otherwise an explicit `copy` makes it one. Operators on
single elements keep the storage of their operand whatever its view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compilers.errors import UnsupportedOperatorError
from compilers.graph import Graph, Op, OpKind, fail
from compilers.kernels.elementwise import filled_channels
from compilers.stored_values import MAP, StoredValues, rows_of
from compilers.views import View

_POINTWISE = (
    OpKind.QUANTIZE, OpKind.DEQUANTIZE, OpKind.RELU, OpKind.HARDSWISH, OpKind.HARDSIGMOID,
    OpKind.GELU, OpKind.SILU, OpKind.NEG, OpKind.RSQRT,
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class StoredGraph:
    """Operators on stored tensors.

    Attributes:
        graph: The operator graph.
        ops: Operators in execution order; `shape` is [rows, columns]. Convolutions and pooling
            have the attributes `height` and `width` of their input, attention those of its
            kernel, `copy` the `sizes` and `strides` of the digits of what it reads, and `offset`.
        shapes: [rows, columns] of every stored tensor; the input's own shape. A quantised image
            has more columns than channels where these are no multiple of 4.
        constants: Operands that do not depend on the input: [rows, columns], or one row; the bias
            of attention [heads, queries, keys].
        views: Value of the graph -> where its elements lie.
        output: The stored tensor that holds the result, row-major.
    """

    graph: Graph
    ops: tuple[Op, ...]
    shapes: Mapping[str, tuple[int, ...]]
    constants: Mapping[str, NDArray[Any]]
    views: Mapping[str, View]
    output: str


def store(graph: Graph) -> StoredGraph:
    """Give every value a place.

    Raises:
        UnsupportedOperatorError: An operator reads what no kernel can, or its form has no kernel.
    """
    return _Storage(graph).run()


class _Storage(StoredValues):
    def run(self) -> StoredGraph:
        for op in self.graph.ops:
            self._place(op)
        shape = self.graph.shapes()[self.graph.output]
        last = self.graph.ops[-1] if self.graph.ops else None
        if last is None:
            raise UnsupportedOperatorError("the network returns its input")
        output = self.operand(last, self.graph.output, rows_of(len(shape)))
        return StoredGraph(
            self.graph, tuple(self.ops), self.shapes, self.constants, self.views, output
        )

    def _place(self, op: Op) -> None:
        match op.kind:
            case OpKind.QUANTIZE if self._is_image(op.inputs[0]):
                self._image(op)
            case OpKind.RESHAPE | OpKind.PERMUTE | OpKind.EXPAND | OpKind.SLICE:
                self._view(op)
            case OpKind.ROPE:
                self.views[op.name] = replace(self.value(op, op.inputs[0]), rotation=op.name)
                self.rotations[op.name] = op
            case OpKind.CONV | OpKind.QCONV:
                self._convolution(op)
            case OpKind.LINEAR | OpKind.QLINEAR | OpKind.WEIGHT_ONLY_LINEAR:
                self._rowwise(op)
            case OpKind.LAYER_NORM | OpKind.RMS_NORM | OpKind.SOFTMAX:
                self._rowwise(op)
            case OpKind.MAX_POOL | OpKind.AVG_POOL:
                self._pool(op)
            case OpKind.MEAN:
                self._mean(op)
            case OpKind.EMBEDDING:
                self._embedding(op)
            case OpKind.CONCAT:
                self._concat(op)
            case OpKind.ATTENTION:
                self._attention(op)
            case OpKind.ADD | OpKind.MUL:
                self._binary(op)
            case OpKind.BATCH_NORM:
                self._batch_norm(op)
            case _:
                assert op.kind in _POINTWISE, op.kind
                view = self.whole(op, op.inputs[0])
                self.write_like(op, view, (view.base,))

    def _is_image(self, name: str) -> bool:
        """Whether a value is the network's input [1, C, H, W]."""
        shape = self.graph.input_shape
        return len(shape) == 4 and self.views.get(name) == View.of(self.graph.input, shape)

    def _image(self, op: Op) -> None:
        """Quantise the network's image: pixels and channels, filled up as integer layers read."""
        _, channels, height, width = op.shape
        stored = filled_channels(channels)
        self.emit(op, (self.graph.input,), height * width, stored)
        filled = View.of(op.name, (1, height, width, stored)).slice(3, 0, channels)
        assert filled is not None
        self.views[op.name] = self.images[op.name] = filled.permute((0, 3, 1, 2))

    def _view(self, op: Op) -> None:
        view = self.views.get(op.inputs[0])
        assert view is not None
        for _ in range(2):
            found: View | None
            if op.kind is OpKind.RESHAPE:
                found = view.reshape(op.shape)
            elif op.kind is OpKind.PERMUTE:
                found = view.permute(op.attributes["axes"])
            elif op.kind is OpKind.EXPAND:
                found = view.expand(op.shape)
            else:
                axis = op.attributes["axis"]
                found = view.slice(axis, op.attributes["start"], op.shape[axis])
            if found is not None:
                self.views[op.name] = found
                return
            view = self.row_major(op, self.value(op, op.inputs[0]))
        raise AssertionError(f"{op.name}: no view of a row-major tensor")

    def _convolution(self, op: Op) -> None:
        weight, (source,) = op.params["weight"], op.inputs
        shape, window = self.shape_of(source), op.params["weight"].shape[2:]
        if len(shape) != 4:
            raise fail(op, f"{op.kind} of {len(shape)} axes")
        linear = OpKind.LINEAR if op.kind is OpKind.CONV else OpKind.QLINEAR
        size = window[0]
        apart = window == (op.stride, op.stride) and not op.padding and op.groups == 1
        view = self.value(op, source)
        image = op.groups == 1 and self.images.get(view.base) == view
        if size > 1 and apart and not image and shape[2] % size == shape[3] % size == 0:
            patches = self._patches(op, view, size)
            flat = weight.reshape(len(weight), -1)
            self.write(op, (patches,), kind=linear, params={**op.params, "weight": flat})
            return
        network_input = self._is_image(source) and op.kind is OpKind.CONV and op.groups == 1
        tensor = view.base if network_input or image else self.operand(op, source, MAP)
        pointwise = window == (1, 1) and op.stride == op.groups == 1 and not op.padding
        if pointwise and not network_input:
            flat = weight.reshape(len(weight), -1)
            self.write(op, (tensor,), kind=linear, params={**op.params, "weight": flat})
            return
        attributes = {**op.attributes, "height": shape[2], "width": shape[3]}
        self.write(op, (tensor,), attributes=attributes)

    def _patches(self, op: Op, view: View, size: int) -> str:
        """Windows that do not overlap, one row each: [pixels, C * size * size]."""
        _, channels, height, width = view.shape
        split = view.reshape((channels, height // size, size, width // size, size))
        if split is None:
            split = self.row_major(op, view).reshape(
                (channels, height // size, size, width // size, size)
            )
        assert split is not None
        return self.copy(
            op, split.permute((1, 3, 0, 2, 4)), (height // size) * (width // size),
            channels * size**2,
        )  # fmt: skip

    def _rowwise(self, op: Op) -> None:
        shape = self.shape_of(op.inputs[0])
        self.write(
            op, (self.operand(op, op.inputs[0], rows_of(len(shape))),), rows_of(len(op.shape))
        )

    def _pool(self, op: Op) -> None:
        shape = self.shape_of(op.inputs[0])
        attributes = {**op.attributes, "height": shape[2], "width": shape[3]}
        self.write(op, (self.operand(op, op.inputs[0], MAP),), attributes=attributes)

    def _mean(self, op: Op) -> None:
        shape, reduced = self.shape_of(op.inputs[0]), op.attributes["axes"]
        kept = tuple(axis for axis in range(len(shape)) if axis not in reduced)
        source = self.operand(op, op.inputs[0], (reduced, kept))
        columns = prod(shape[axis] for axis in kept)
        self.emit(op, (source,), 1, columns)
        view = View.of(op.name, (columns,)).reshape(op.shape)
        assert view is not None
        self.views[op.name] = view

    def _embedding(self, op: Op) -> None:
        if op.inputs[0] != self.graph.input:
            raise fail(op, "an embedding of anything but the network's input")
        self.write(op, op.inputs, rows_of(len(op.shape)))

    def _concat(self, op: Op) -> None:
        form = MAP if len(op.shape) == 4 else rows_of(len(op.shape))
        axis = op.attributes["axis"]
        outer = form[0][: form[0].index(axis)] if axis in form[0] else form[1][:-1]
        if any(op.shape[a] > 1 for a in outer):
            raise fail(op, f"a concatenation along axis {axis} of {list(op.shape)}")
        inputs = [self.operand(op, name, form) for name in op.inputs]
        self.write(op, inputs, form, attributes={"axis": int(axis in form[1])})

    def _binary(self, op: Op) -> None:
        known = [name for name in op.inputs if name in self.views]
        # The operand that has the shape of the result decides how that is stored.
        known.sort(key=lambda name: self.shape_of(name) != op.shape)
        if not known or self.shape_of(known[0]) != op.shape:
            raise fail(op, f"{op.kind} of operands that both broadcast to {list(op.shape)}")
        view = self.whole(op, known[0])
        if op.inputs[0] == op.inputs[1]:
            self.write_like(op, view, (view.base, view.base))
            return
        (other,) = {*op.inputs} - {known[0]}
        if len(known) == 1:
            second = self.constant_like(other, view)
        else:
            second = self.value_like(op, self.value(op, other), view)
        self.write_like(op, view, (view.base, second))

    def _batch_norm(self, op: Op) -> None:
        view = self.whole(op, op.inputs[0])
        channels = (-1,) + (1,) * (len(op.shape) - 2)
        scale = self.constant_like(op.name, view, op.params["weight"].reshape(channels))
        shift = self.constant_like(op.name, view, op.params["bias"].reshape(channels))
        scaled = replace(op, name=f"{op.name}.scaled", kind=OpKind.MUL, params={})
        self.write_like(scaled, view, (view.base, scale))
        self.write_like(
            op, replace(view, base=scaled.name), (scaled.name, shift), kind=OpKind.ADD, params={}
        )

    def _attention(self, op: Op) -> None:
        views = [self.views[name] for name in op.inputs[:3]]
        heads, queries, width = views[0].shape[1:]
        keys = views[1].shape[2]
        params = self._rotation(op, views)
        repeated = [bool(view.axes[1]) and view.axes[1][-1][1] == 0 for view in views[1:]]
        if all(repeated):
            # Heads that were repeated for the queries that share them.
            views[1:] = [
                replace(view, axes=(view.axes[0], view.axes[1][:-1], *view.axes[2:]))
                for view in views[1:]
            ]
        placed = [self._heads(op, view) for view in views]
        inputs = [tensor for tensor, _ in placed]
        for name in op.inputs[3:]:
            inputs.append(self.add_constant(name, self.graph.constants[name]))
        attributes = {
            **op.attributes, "queries": queries, "keys": keys, "heads": heads,
            "kv_heads": views[1].shape[1], "head_dim": width, "value_dim": views[2].shape[3],
            **{f"{role}_offset": offset
               for role, (_, offset) in zip("qkv", placed, strict=True)},
            **{f"{role}_stride": self.shapes[tensor][1]
               for role, (tensor, _) in zip("qkv", placed, strict=True)},
        }  # fmt: skip
        self.write(op, inputs, ((0, 2), (1, 3)), attributes=attributes, params=params)

    def _rotation(self, op: Op, views: Sequence[View]) -> Mapping[str, NDArray[Any]]:
        """The tables of the rotary embedding of queries and keys; empty without one."""
        names = [view.rotation for view in views]
        if names == [None, None, None]:
            return {}
        tables: list[Mapping[str, NDArray[Any]]] = []
        for view in views[:2]:
            rotation = self.rotations.get(view.rotation or "")
            if rotation is None:
                continue
            counted = self.views[rotation.name].axes[rotation.attributes["axis"]]
            if counted == view.axes[2] and rotation.params["cos"].shape == view.shape[2:]:
                tables.append(rotation.params)
        if names[2] is not None or len(tables) < 2 or not _equal(*tables):
            raise fail(
                op, "attention whose queries and keys have not the same rotary embedding of tokens"
            )
        return tables[0]

    def _heads(self, op: Op, view: View) -> tuple[str, int]:
        """The tensor [tokens, columns] that holds heads side by side, and the first's column."""
        _, heads, tokens, width = view.shape
        base = self.shapes[view.base]
        side_by_side = (view.axes[1], view.axes[3]) == View.of("", (heads, width)).axes
        fits = len(base) == 2 and base[0] == tokens and view.offset + heads * width <= base[1]
        if fits and side_by_side and view.axes[2] == View.of("", base).axes[0]:
            return view.base, view.offset
        plain = replace(view, rotation=None)
        return self.copy(op, plain.permute((0, 2, 1, 3)), tokens, heads * width), 0


def _equal(first: Mapping[str, NDArray[Any]], second: Mapping[str, NDArray[Any]]) -> bool:
    return all(np.array_equal(first[role], second[role]) for role in first)
