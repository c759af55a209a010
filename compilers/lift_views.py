"""Operators of exported programs that move elements, or change nothing, as those of the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from compilers.graph import OpKind
from compilers.lift import Translator, Value, op_name

if TYPE_CHECKING:
    from compilers.lift import Lifter

_SAME = (
    "contiguous.default", "clone.default", "alias.default", "detach.default", "detach_.default",
    "lift_fresh_copy.default", "to.dtype", "to.device", "to.dtype_layout", "type_as.default",
    "dropout.default", "dropout_.default",
)  # fmt: skip
_RESHAPING = (
    "view.default", "reshape.default", "flatten.using_ints", "unflatten.int", "unsqueeze.default",
    "squeeze.default", "squeeze.dim", "squeeze.dims", "_unsafe_view.default", "view_as.default",
    "reshape_as.default",
)  # fmt: skip


def same(at: Lifter, given: dict[str, Any]) -> Value:
    """What changes nothing here: copies, layouts, dropout in evaluation."""
    if given.get("train") or at.node.meta["val"].dtype not in (
        torch.float32, torch.int64, torch.uint8
    ):  # fmt: skip
        raise at.fail(f"{op_name(at.node)} to {at.node.meta['val'].dtype}")
    source = next(iter(given.values()))
    before = at.node.all_input_nodes[0].meta["val"].dtype
    if before != at.node.meta["val"].dtype:
        raise at.fail(f"a conversion from {before} to {at.node.meta['val'].dtype}")
    assert isinstance(source, str)
    return source


def reshape(at: Lifter, given: dict[str, Any]) -> Value:
    """Any operator that only changes the shape."""
    source: str = next(iter(given.values()))
    if at.known_shape(source) == at.shape():
        return source
    return at.emit(OpKind.RESHAPE, [source])


def expand(at: Lifter, given: dict[str, Any]) -> Value:
    """aten.expand."""
    if at.known_shape(given["self"]) == at.shape():
        return str(given["self"])
    return at.emit(OpKind.EXPAND, [given["self"]])


def permute(at: Lifter, given: dict[str, Any]) -> Value:
    """aten.permute, aten.transpose, aten.t, aten.mT."""
    rank = len(at.shape())
    axes = list(range(rank))
    if "dims" in given:
        axes = [axis % rank for axis in given["dims"]]
    else:
        a, b = given.get("dim0", -2) % rank, given.get("dim1", -1) % rank
        axes[a], axes[b] = axes[b], axes[a]
    return at.emit(OpKind.PERMUTE, [given["self"]], axes=tuple(axes))


def slice(at: Lifter, given: dict[str, Any]) -> Value:
    """aten.slice without steps."""
    if given["step"] != 1:
        raise at.fail(f"a slice with step {given['step']}")
    shape = at.known_shape(given["self"])
    axis, start = given["dim"] % len(shape), given["start"] or 0
    if shape == at.shape():
        return str(given["self"])
    start = min(start + shape[axis] if start < 0 else start, shape[axis])
    return at.emit(OpKind.SLICE, [given["self"]], axis=axis, start=start)


def select(at: Lifter, given: dict[str, Any]) -> Value:
    """aten.select, aten.unbind: one element of an axis, or all of them."""
    source: str = given["self"]
    shape = at.known_shape(source)
    axis = given["dim"] % len(shape)
    left = (*shape[:axis], *shape[axis + 1 :])
    kept = (*shape[:axis], 1, *shape[axis + 1 :])

    def one(index: int, name: str) -> str:
        part = at.emit(
            OpKind.SLICE, [source], name=f"{name}.slice", shape=kept, axis=axis, start=index
        )
        return at.emit(OpKind.RESHAPE, [part], name=name, shape=left)

    if "index" in given:
        return one(given["index"] % shape[axis], at.node.name)
    return [one(i, f"{at.node.name}.{i}") for i in range(shape[axis])]


def split(at: Lifter, given: dict[str, Any]) -> Value:
    """aten.split, aten.split_with_sizes, aten.chunk: slices of an axis."""
    source: str = given["self"]
    shape = at.known_shape(source)
    axis = given["dim"] % len(shape)
    parts: list[Value] = []
    start = 0
    for i, piece in enumerate(at.node.meta["val"]):
        size = tuple(map(int, piece.shape))
        name = f"{at.node.name}.{i}"
        parts.append(at.emit(OpKind.SLICE, [source], name=name, shape=size, axis=axis, start=start))
        start += size[axis]
    return parts


def repeat_interleave(at: Lifter, given: dict[str, Any]) -> Value:
    """aten.repeat_interleave of whole axes: each element `repeats` times in a row."""
    source, repeats = given["self"], given["repeats"]
    shape = at.known_shape(source)
    if given["dim"] is None:
        raise at.fail("repeat_interleave without an axis")
    axis = given["dim"] % len(shape)
    single = (*shape[: axis + 1], 1, *shape[axis + 1 :])
    several = (*shape[: axis + 1], repeats, *shape[axis + 1 :])
    name = at.node.name
    inner = at.emit(OpKind.RESHAPE, [source], name=f"{name}.single", shape=single)
    inner = at.emit(OpKind.EXPAND, [inner], name=f"{name}.several", shape=several)
    return at.emit(OpKind.RESHAPE, [inner])


def concat(at: Lifter, given: dict[str, Any]) -> Value:
    """aten.cat."""
    axis = given["dim"] % len(at.shape())
    return at.emit(OpKind.CONCAT, list(given["tensors"]), axis=axis)


TRANSLATORS: dict[str, Translator] = {
    "expand.default": expand,
    "permute.default": permute,
    "transpose.int": permute,
    "t.default": permute,
    "mT.default": permute,
    "slice.Tensor": slice,
    "select.int": select,
    "unbind.int": select,
    "split.Tensor": split,
    "split_with_sizes.default": split,
    "chunk.default": split,
    "repeat_interleave.self_int": repeat_interleave,
    "cat.default": concat,
    **dict.fromkeys(_SAME, same),
    **dict.fromkeys(_RESHAPING, reshape),
}
"""By the names that torch.export gives to operators."""
