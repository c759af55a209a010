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
from compilers.grouping import Grouping, readers_of
from compilers.kernel_calls import (
    ACTIVATIONS,
    INTEGER,
    LAYERS,
    NORMS,
    Group,
    KernelCall,
    KernelGraph,
    layer_kernel,
    other_kernel,
)
from compilers.kernels import Dequantize, Quantize, QuantizeImage, SqueezeExcite
from compilers.kernels.base import DType, Kernel, LayerParams, QParams
from compilers.quantisations import qparams_of, simplify
from compilers.storage import StoredGraph, store

# Kernels that quantise their result, and those that dequantise while they read.
_QUANTISING = (
    *LAYERS, *NORMS, *ACTIVATIONS, OpKind.MEAN, OpKind.ATTENTION, OpKind.ADD, OpKind.MUL
)  # fmt: skip
_DEQUANTISING = (*NORMS, OpKind.MEAN)


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
        ops, self.output = simplify(stored)
        self.ops = {op.name: op for op in ops}
        self.shapes = {**stored.shapes, **{op.name: op.shape for op in ops}}
        self.readers = readers_of(ops)
        self.calls: list[KernelCall] = []
        self.groups: dict[str, Group] = {}

    def run(self) -> KernelGraph:
        grouping = Grouping(self.ops, self.shapes, self.constants, self.output)
        self.groups = {group.ops[-1].name: group for group in grouping.groups()}
        dequantising = {
            read for group in self.groups.values() for read in _dequantising_reads(group)
        }
        for op in self.ops.values():
            if (group := self.groups.get(op.name)) is not None:
                self._emit(group)
            elif op.kind is OpKind.QUANTIZE:
                if self._stored_as(op.inputs[0]) is None:
                    params = LayerParams(output=qparams_of(op))
                    self._write(KernelCall(op.site, self._quantize(op), op.inputs, op.name, params))
            elif op.kind is OpKind.DEQUANTIZE:
                readers = self.readers.get(op.name, [])
                if any((op.name, reader.name) not in dequantising for reader in readers):
                    params = LayerParams(input=qparams_of(op))
                    kernel = Dequantize(*op.shape)
                    self._write(KernelCall(op.site, kernel, op.inputs, op.name, params))
        return KernelGraph(
            self.graph.input, self.graph.input_shape, tuple(self.calls), self.output,
            self.graph.input_dtype, self.graph.shapes()[self.graph.output], self.constants,
        )  # fmt: skip

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
            return op.inputs[0], qparams_of(op)
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
        output = qparams_of(quantize) if quantize is not None else None
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
        qparams = qparams_of(quantize)
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


def _dtype(qparams: QParams | None) -> DType:
    return "float32" if qparams is None else "uint8"


def _parent(first: str, second: str) -> str:
    """`se` for `se.reduce` and `se.expand`."""
    shared = first.rpartition(".")[0]
    return shared if shared and shared == second.rpartition(".")[0] else first
