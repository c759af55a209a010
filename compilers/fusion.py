"""From an operator graph to kernel calls: one kernel per layer, with what follows it fused.

A convolution or linear layer takes along factors and offsets per channel (batch normalisation), an
activation, an addition or multiplication (residual, gate) and the quantisation of its result,
attention an activation and the quantisation; squeeze-and-excite becomes one kernel. Every tensor
is stored once, in one element type:

- uint8 when all that read it quantise it with the same constants: the producer's epilogue
  quantises, and readers that want float values (a residual, squeeze-and-excite, pooling,
  normalisation) dequantise while they read;
- float32 otherwise. If only some readers quantise it, an explicit `Quantize` kernel makes their
  uint8 copy; a float layer that reads a quantised tensor gets an explicit `Dequantize`.

So every reader sees exactly the values that it sees in the module.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compilers.errors import KernelError
from compilers.graph import Graph, Op, OpKind, fail
from compilers.kernel_calls import (
    ACTIVATIONS,
    COMBINES,
    INTEGER,
    LAYERS,
    NORMS,
    QUANTISED,
    Group,
    KernelCall,
    KernelGraph,
    is_depthwise,
    layer_kernel,
    other_kernel,
)
from compilers.kernels import Dequantize, Quantize, QuantizeImage, SqueezeExcite
from compilers.kernels.base import DType, Kernel, LayerParams, QParams
from compilers.storage import StoredGraph, store
from spaces.layer_spec import Activation

# Kernels that quantise their result, and those that dequantise while they read.
_QUANTISING = (
    *LAYERS, *NORMS, *ACTIVATIONS, OpKind.MEAN, OpKind.ATTENTION, OpKind.ADD, OpKind.MUL
)  # fmt: skip
_DEQUANTISING = (*NORMS, OpKind.MEAN)
_RESIDUAL_CHANNELS = 8
"""Layers whose channels are no multiple of it take no residual."""


def fuse(graph: Graph) -> KernelGraph:
    """Cover `graph` with kernel calls.

    Raises:
        UnsupportedOperatorError: No kernel template covers an operator, its shape or its place; the
            message names the operator and its site.
    """
    return _Fusion(store(graph)).run()


class _Fusion:
    def __init__(self, stored: StoredGraph) -> None:
        self.graph = stored.graph
        self.constants = dict(stored.constants)
        ops, self.output = _simplify(stored)
        self.ops = {op.name: op for op in ops}
        self.shapes = {**stored.shapes, **{op.name: op.shape for op in ops}}
        self.readers: dict[str, list[Op]] = {}
        for op in ops:
            for name in dict.fromkeys(op.inputs):
                self.readers.setdefault(name, []).append(op)
        self.claimed: set[str] = set()
        self.calls: list[KernelCall] = []
        self.groups: dict[str, Group] = {}

    def run(self) -> KernelGraph:
        self.groups = {group.ops[-1].name: group for group in self._groups()}
        dequantising = {
            read for group in self.groups.values() for read in _dequantising_reads(group)
        }
        for op in self.ops.values():
            if (group := self.groups.get(op.name)) is not None:
                self._emit(group)
            elif op.kind is OpKind.QUANTIZE:
                if self._stored_as(op.inputs[0]) is None:
                    params = LayerParams(output=_qparams(op))
                    self._write(KernelCall(op.site, self._quantize(op), op.inputs, op.name, params))
            elif op.kind is OpKind.DEQUANTIZE:
                readers = self.readers.get(op.name, [])
                if any((op.name, reader.name) not in dequantising for reader in readers):
                    params = LayerParams(input=_qparams(op))
                    kernel = Dequantize(*op.shape)
                    self._write(KernelCall(op.site, kernel, op.inputs, op.name, params))
        return KernelGraph(
            self.graph.input, self.graph.input_shape, tuple(self.calls), self.output,
            self.graph.input_dtype, self.graph.shapes()[self.graph.output], self.constants,
        )  # fmt: skip

    # Groups

    def _groups(self) -> list[Group]:
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

    # Element types

    def _stored_as(self, name: str) -> Op | None:
        """The quantisation whose result is stored instead of the float value `name`."""
        group = self.groups.get(name)
        readers = self.readers.get(name, [])
        if group is None or group.anchor.kind not in _QUANTISING or name == self.output:
            return None
        only = len(readers) == 1 and readers[0].kind is OpKind.QUANTIZE
        return readers[0] if only else None

    def _load(self, name: str) -> tuple[str, QParams | None]:
        """The tensor to read for the float value `name`, and how to dequantise it."""
        op = self.ops.get(name)
        if op is not None and op.kind is OpKind.DEQUANTIZE:
            return op.inputs[0], _qparams(op)
        return name, None

    def _stored_dtype(self, name: str) -> DType:
        """Element type of a tensor that data movement reads as it is."""
        op = self.ops.get(name)
        if op is None or op.kind is OpKind.QUANTIZE:
            return "float32" if op is None else "uint8"
        moved = (OpKind.COPY, OpKind.CONCAT, OpKind.MAX_POOL)
        return self._stored_dtype(op.inputs[0]) if op.kind in moved else "float32"

    # Calls

    def _emit(self, group: Group) -> None:
        value = group.ops[-1]
        quantize = self._stored_as(value.name)
        output = _qparams(quantize) if quantize is not None else None
        try:
            if group.excitation is not None:
                call = self._excite(group, _dtype(output))
            elif group.anchor.kind in LAYERS:
                call = self._convolve(group, _dtype(output))
            else:
                call = self._other(group, _dtype(output))
        except KernelError as error:
            raise fail(group.anchor, f"this {group.anchor.kind}: {error}") from error
        written = quantize.name if quantize is not None else value.name
        self._write(replace(call, output=written, params=replace(call.params, output=output)))

    def _write(self, call: KernelCall) -> None:
        expected, shape = call.kernel.output_shape, self.shapes[call.output]
        if expected != shape:
            raise AssertionError(f"{call.site}: kernel writes {expected} for a tensor {shape}")
        self.calls.append(call)

    def _integer_input(self, op: Op) -> QParams:
        quantize = self.ops.get(op.inputs[0])
        while quantize is not None and quantize.kind in (OpKind.COPY, OpKind.MAX_POOL):
            quantize = self.ops.get(quantize.inputs[0])
        if quantize is None or quantize.kind is not OpKind.QUANTIZE:
            raise fail(op, f"{op.kind} whose input is not a quantised tensor")
        qparams = _qparams(quantize)
        if qparams.zero_point != int(op.params["input_zero_point"]):
            raise fail(op, f"{op.kind} whose zero point differs from its input's")
        return qparams

    def _quantize(self, op: Op) -> Kernel:
        source = self.shapes[op.inputs[0]]
        if len(source) == 4:
            return QuantizeImage(source[2], source[3], source[1])
        return Quantize(*op.shape)

    def _convolve(self, group: Group, output: DType) -> KernelCall:
        op, source = group.anchor, group.anchor.inputs[0]
        integer = self._integer_input(op) if op.kind in INTEGER else None
        inputs: tuple[str, ...] = (source,)
        residual, residual_type = None, None
        if group.residual is not None:
            name, residual = self._load(group.residual)
            inputs, residual_type = (source, name), _dtype(residual)
        weight = group.params["weight"]
        if integer is not None and op.groups == 1:
            # What fills up the channels of a quantised image counts nothing.
            filling = self.shapes[source][1] - weight.shape[1]
            weight = np.pad(weight, ((0, 0), (0, filling), *((0, 0),) * (weight.ndim - 2)))
        params = LayerParams(
            weight=weight,
            bias=group.params["bias"],
            scale=op.params.get("scale"),
            input=integer,
            residual=residual,
        )
        kernel = layer_kernel(group, self.shapes[source], _dtype(integer), residual_type, output)
        return KernelCall(op.site, kernel, inputs, "", params)

    def _excite(self, group: Group, output: DType) -> KernelCall:
        assert group.excitation is not None
        reduce, expand = group.excitation
        name, qparams = self._load(group.anchor.inputs[0])
        pixels, channels = group.ops[-1].shape
        hidden = len(reduce.params["weight"])
        kernel = SqueezeExcite(pixels, channels, hidden, _dtype(qparams), output)
        params = LayerParams(
            weight=reduce.params["weight"],
            bias=reduce.params["bias"],
            expand_weight=expand.params["weight"],
            expand_bias=expand.params["bias"],
            input=qparams,
        )
        return KernelCall(_parent(reduce.site, expand.site), kernel, (name,), "", params)

    def _other(self, group: Group, output: DType) -> KernelCall:
        op, inputs, qparams = group.anchor, group.anchor.inputs, None
        dtype = self._stored_dtype(inputs[0])
        if op.kind in _DEQUANTISING:
            name, qparams = self._load(inputs[0])
            inputs, dtype = (name,), _dtype(qparams)
        kernel = other_kernel(group, self.shapes, dtype, output)
        weight, bias = op.params.get("weight"), op.params.get("bias")
        if op.kind is OpKind.RMS_NORM and weight is not None:
            bias = np.zeros_like(weight)
        if op.kind is OpKind.ATTENTION and op.params:
            tables = [self._constant(f"{op.name}.{role}", op.params[role])
                      for role in ("cos", "sin")]  # fmt: skip
            inputs = (*inputs[:3], *tables, *inputs[3:])
        params = LayerParams(weight=weight, bias=bias, input=qparams)
        return KernelCall(op.site, kernel, inputs, "", params)

    def _constant(self, name: str, array: NDArray[Any]) -> str:
        self.constants[name] = array
        return name


def _dequantising_reads(group: Group) -> set[tuple[str, str]]:
    """(value, operator) pairs whose kernel dequantises that value while it reads it."""
    if group.residual is not None:
        reader = next(op for op in group.ops if group.residual in op.inputs)
        return {(group.residual, reader.name)}
    if group.anchor.kind in _DEQUANTISING:
        return {(group.anchor.inputs[0], op.name) for op in (group.anchor, group.ops[-1])}
    return set()


def _simplify(stored: StoredGraph) -> tuple[list[Op], str]:
    """Without repeated quantisations; the maximum of quantised values instead of the quantised one.

    Quantisation is monotone, so that it may come before a maximum, where the producer's epilogue
    takes it over.
    """
    alias: dict[str, str] = {}
    known: dict[tuple[OpKind, str, QParams], str] = {}
    ops: dict[str, Op] = {}
    # Equal quantisations of one value are one reader.
    readers: dict[str, set[object]] = {}
    for op in stored.ops:
        reader = (op.kind, _qparams(op)) if op.kind is OpKind.QUANTIZE else op.name
        for name in op.inputs:
            readers.setdefault(name, set()).add(reader)
    for original in stored.ops:
        op = replace(original, inputs=tuple(alias.get(name, name) for name in original.inputs))
        pool = ops.get(op.inputs[0])
        movable = pool is not None and pool.kind is OpKind.MAX_POOL and len(readers[pool.name]) == 1
        if op.kind is OpKind.QUANTIZE and movable and pool is not None:
            del ops[pool.name]
            source = ops.get(pool.inputs[0])
            if (
                source is not None
                and source.kind is OpKind.DEQUANTIZE
                and (_qparams(source) == _qparams(op))
            ):
                first = source.inputs[0]
            else:
                shape = stored.shapes[pool.inputs[0]]
                moved = replace(op, name=f"{op.name}.first", inputs=pool.inputs, shape=shape)
                first = _known(known, ops, moved)
            known[OpKind.QUANTIZE, pool.name, _qparams(op)] = op.name
            op = replace(pool, name=op.name, inputs=(first,))
        if op.kind in (OpKind.QUANTIZE, OpKind.DEQUANTIZE):
            name = _known(known, ops, op)
            if name != op.name:
                alias[op.name] = name
            continue
        ops[op.name] = op
    return list(ops.values()), alias.get(stored.output, stored.output)


def _known(known: dict[tuple[OpKind, str, QParams], str], ops: dict[str, Op], op: Op) -> str:
    """Name of a quantisation that is in `ops` already, or is added now."""
    name = known.setdefault((op.kind, op.inputs[0], _qparams(op)), op.name)
    if name == op.name:
        ops[name] = op
    return name


def _qparams(op: Op) -> QParams:
    return QParams(float(op.params["scale"]), int(op.params["zero_point"]))


def _dtype(qparams: QParams | None) -> DType:
    return "float32" if qparams is None else "uint8"


def _parent(first: str, second: str) -> str:
    """`se` for `se.reduce` and `se.expand`."""
    shared = first.rpartition(".")[0]
    return shared if shared and shared == second.rpartition(".")[0] else first
