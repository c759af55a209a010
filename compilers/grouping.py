"""Which operators one kernel executes: a layer with what follows it, squeeze-and-excite, others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from numpy.typing import NDArray

from compilers.graph import Op, OpKind
from compilers.kernel_calls import (
    ACTIVATIONS,
    COMBINES,
    LAYERS,
    QUANTISED,
    Group,
    is_depthwise,
)
from spaces.layer_spec import Activation

_RESIDUAL_CHANNELS = 8
"""Layers whose channels are no multiple of it take no residual."""


def readers_of(ops: Iterable[Op]) -> dict[str, list[Op]]:
    """Value -> the operators that read it, in order."""
    readers: dict[str, list[Op]] = {}
    for op in ops:
        for name in dict.fromkeys(op.inputs):
            readers.setdefault(name, []).append(op)
    return readers


class Grouping:
    """Covers operators, but for quantisations, with groups.

    Args:
        ops: Operators on stored tensors by name, in execution order.
        shapes: Of stored tensors.
        constants: Operands that do not depend on the input.
        output: Name of the result.
    """

    def __init__(
        self,
        ops: Mapping[str, Op],
        shapes: Mapping[str, tuple[int, ...]],
        constants: Mapping[str, NDArray[Any]],
        output: str,
    ) -> None:
        self.ops, self.shapes, self.constants, self.output = ops, shapes, constants, output
        self.readers = readers_of(ops.values())
        self.claimed: set[str] = set()

    def groups(self) -> list[Group]:
        """All groups: squeeze-and-excites, then layers, then other operators."""
        groups = [
            group
            for op in self.ops.values()
            if op.kind is OpKind.MUL and (group := self._squeeze_excite(op)) is not None
        ]
        for op in self.ops.values():
            if op.kind in LAYERS and op.name not in self.claimed:
                groups.append(self._layer(op))
        for op in self.ops.values():
            if op.kind in (OpKind.QUANTIZE, OpKind.DEQUANTIZE) or op.name in self.claimed:
                continue
            group = Group(op, [op], op.params)
            if op.kind in (*COMBINES, OpKind.ATTENTION):
                self._take_activation(group)
            groups.append(group)
            self.claimed.update(op.name for op in group.ops)
        return groups

    def _reader(self, name: str) -> Op | None:
        """The only reader of a value, unless it belongs to a group or the value is the result."""
        readers = self.readers.get(name, [])
        if len(readers) != 1 or name == self.output or readers[0].name in self.claimed:
            return None
        return readers[0]

    def _squeeze_excite(self, scale: Op) -> Group | None:
        """Match x * hardsigmoid(expand(relu(reduce(mean(x)))))."""
        chain: list[Op] = [scale]
        name = scale.inputs[1]
        kinds = (OpKind.HARDSIGMOID, OpKind.LINEAR, OpKind.RELU, OpKind.LINEAR, OpKind.MEAN)
        for kind in kinds:
            op = self.ops.get(name)
            if op is None or op.kind is not kind or self._reader(name) is None:
                return None
            chain.append(op)
            name = op.inputs[0]
        if name != scale.inputs[0]:
            return None
        chain.reverse()
        self.claimed.update(op.name for op in chain)
        return Group(chain[0], chain, excitation=(chain[1], chain[3]))

    def _layer(self, anchor: Op) -> Group:
        group = Group(anchor, [anchor], anchor.params)
        while self._take_affine(group):
            pass
        self._take_activation(group)
        self._take_residual(group)
        if group.residual is not None and group.activation is Activation.NONE:
            group.activation_last = self._take_activation(group)
        self.claimed.update(op.name for op in group.ops)
        return group

    def _take_affine(self, group: Group) -> bool:
        """Fold a factor or an offset per channel into the weights and the bias."""
        reader = self._reader(group.ops[-1].name)
        if group.anchor.kind in QUANTISED or reader is None or reader.kind not in COMBINES:
            return False
        row = self.constants.get(reader.inputs[1])
        if row is None or len(row) != 1 or row.shape[1] != reader.shape[1]:
            return False
        weight, bias = group.params["weight"], group.params["bias"]
        if reader.kind is OpKind.ADD:
            params = {"weight": weight, "bias": bias + row[0]}
        else:
            factor = row[0].reshape((-1,) + (1,) * (weight.ndim - 1))
            params = {"weight": weight * factor, "bias": bias * row[0]}
        group.params = params
        group.ops.append(reader)
        return True

    def _take_activation(self, group: Group) -> bool:
        reader = self._reader(group.ops[-1].name)
        if reader is None or reader.kind not in ACTIVATIONS:
            return False
        group.activation = ACTIVATIONS[reader.kind]
        group.ops.append(reader)
        return True

    def _take_residual(self, group: Group) -> None:
        last = group.ops[-1]
        reader = self._reader(last.name)
        if reader is None or reader.kind not in COMBINES or is_depthwise(group.anchor):
            return
        others = [name for name in reader.inputs if name != last.name]
        fits = last.shape == reader.shape and last.shape[1] % _RESIDUAL_CHANNELS == 0
        if fits and others and self.shapes[others[0]] == reader.shape:
            group.residual = others[0]
            group.combine = COMBINES[reader.kind]
            group.ops.append(reader)
