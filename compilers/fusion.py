"""From an operator graph to kernel calls: one kernel per convolution, with what follows fused.

A convolution or linear layer takes along its activation, an addition (residual) and the
quantisation of its result; squeeze-and-excite becomes one kernel. Every tensor is stored once, in
one element type:

- uint8 when all that read it quantise it with the same constants: the producer's epilogue
  quantises, and readers that want float values (a residual, squeeze-and-excite, pooling)
  dequantise while they read;
- float32 otherwise. If only some readers quantise it, an explicit `Quantize` kernel makes their
  uint8 copy; a float layer that reads a quantised tensor gets an explicit `Dequantize`.

So every reader sees exactly the values that it sees in the extracted module.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from compilers.errors import KernelError, UnsupportedOperatorError
from compilers.graph import Graph, Op, OpKind
from compilers.kernels import (
    Conv,
    Depthwise,
    Dequantize,
    Gemm,
    GlobalPool,
    Quantize,
    SqueezeExcite,
    WeightOnlyGemm,
)
from compilers.kernels.base import DType, Kernel, LayerParams, QParams
from compilers.kernels.nibbles import held_bits
from spaces.layer_spec import Activation

_ANCHORS = (
    OpKind.CONV, OpKind.LINEAR, OpKind.QCONV, OpKind.QLINEAR, OpKind.WEIGHT_ONLY_LINEAR
)  # fmt: skip
_INTEGER = (OpKind.QCONV, OpKind.QLINEAR)
_ACTIVATIONS = {OpKind.RELU: Activation.RELU, OpKind.HARDSWISH: Activation.HARDSWISH}


@dataclass(frozen=True, slots=True, eq=False)
class KernelCall:
    """One call of a compiled kernel.

    Attributes:
        site: The module that it executes.
        kernel: What is called.
        inputs: Names of the tensors that it reads: x, then a residual.
        output: Name of the tensor that it writes: of the operator whose result it holds.
        params: Weights and quantisation constants in the on-disk layout.
    """

    site: str
    kernel: Kernel
    inputs: tuple[str, ...]
    output: str
    params: LayerParams


@dataclass(frozen=True, slots=True, eq=False)
class KernelGraph:
    """Kernel calls in execution order, from one input to one output."""

    input: str
    input_shape: tuple[int, ...]
    calls: tuple[KernelCall, ...]
    output: str


def fuse(graph: Graph) -> KernelGraph:
    """Cover `graph` with kernel calls.

    Raises:
        UnsupportedOperatorError: An operator is left over, or no kernel has its shape; the
            message names the operator and its site.
    """
    return _Fusion(graph).run()


@dataclass(slots=True, eq=False)
class _Group:
    """Operators that one kernel executes; `ops[-1]` gives the place in the order of execution."""

    anchor: Op
    ops: list[Op]
    activation: Activation = Activation.NONE
    residual: str | None = None
    excitation: tuple[Op, Op] | None = None

    def dequantising_reads(self) -> set[tuple[str, str]]:
        """(value, operator) pairs whose kernel dequantises that value while it reads it."""
        if self.residual is not None:
            return {(self.residual, self.ops[-1].name)}
        if self.anchor.kind is OpKind.MEAN:
            return {(self.anchor.inputs[0], op.name) for op in (self.anchor, self.ops[-1])}
        return set()


class _Fusion:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        ops, self.output = _simplify(graph)
        self.ops = {op.name: op for op in ops}
        self.shapes = graph.shapes()
        self.readers: dict[str, list[Op]] = {}
        for op in ops:
            for name in dict.fromkeys(op.inputs):
                self.readers.setdefault(name, []).append(op)
        self.claimed: set[str] = set()
        self.calls: list[KernelCall] = []

    def run(self) -> KernelGraph:
        if len(self.shapes[self.output]) != 2:
            shape = self.shapes[self.output]
            raise UnsupportedOperatorError(f"the output has shape {shape}; it must be [1, C]")
        groups = {group.ops[-1].name: group for group in self._groups()}
        dequantising = {read for group in groups.values() for read in group.dequantising_reads()}
        for op in self.ops.values():
            if (group := groups.get(op.name)) is not None:
                self._emit(group)
            elif op.kind is OpKind.QUANTIZE:
                if op.inputs[0] not in groups or self._stored_as(op.inputs[0]) is None:
                    self._emit_quantize(op)
            elif op.kind is OpKind.DEQUANTIZE:
                readers = self.readers.get(op.name, [])
                if any((op.name, reader.name) not in dequantising for reader in readers):
                    self._emit_dequantize(op)
            elif op.name not in self.claimed:
                raise _fail(op, f"operator {op.kind} that follows no kernel it could be fused into")
        return KernelGraph(self.graph.input, self.graph.input_shape, tuple(self.calls), self.output)

    def _groups(self) -> list[_Group]:
        groups = [
            group
            for op in self.ops.values()
            if op.kind is OpKind.MUL and (group := self._squeeze_excite(op)) is not None
        ]
        for op in self.ops.values():
            if op.name in self.claimed:
                continue
            if op.kind in _ANCHORS:
                groups.append(self._layer(op))
            elif op.kind is OpKind.MEAN:
                groups.append(_Group(op, [op]))
                self.claimed.add(op.name)
        return groups

    def _reader(self, name: str) -> Op | None:
        """The only reader of a value, if there is one and the value is not the result."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name != self.output else None

    def _squeeze_excite(self, scale: Op) -> _Group | None:
        """Match x * hardsigmoid(expand(relu(reduce(mean(x)))))."""
        chain: list[Op] = [scale]
        name = scale.inputs[1]
        dense = (OpKind.LINEAR, OpKind.CONV)
        for kinds in ((OpKind.HARDSIGMOID,), dense, (OpKind.RELU,), dense, (OpKind.MEAN,)):
            op = self.ops.get(name)
            if op is None or op.kind not in kinds or self._reader(name) is None:
                return None
            if op.kind is OpKind.CONV and prod(op.params["weight"].shape[2:]) * op.groups != 1:
                return None
            chain.append(op)
            name = op.inputs[0]
        if name != scale.inputs[0]:
            return None
        chain.reverse()
        self.claimed.update(op.name for op in chain)
        return _Group(chain[0], chain, excitation=(chain[1], chain[3]))

    def _layer(self, anchor: Op) -> _Group:
        group = _Group(anchor, [anchor])
        reader = self._reader(anchor.name)
        if reader is not None and reader.kind in _ACTIVATIONS:
            group.activation = _ACTIVATIONS[reader.kind]
            group.ops.append(reader)
            reader = self._reader(reader.name)
        if (
            reader is not None
            and reader.kind is OpKind.ADD
            and reader.name not in self.claimed
            and reader.inputs[0] != reader.inputs[1]
            and not _is_depthwise(anchor)
        ):
            last = group.ops[-1].name
            group.residual = next(name for name in reader.inputs if name != last)
            group.ops.append(reader)
        self.claimed.update(op.name for op in group.ops)
        return group

    def _stored_as(self, name: str) -> Op | None:
        """The quantisation whose result is stored instead of the float value `name`."""
        reader = self._reader(name)
        return reader if reader is not None and reader.kind is OpKind.QUANTIZE else None

    def _load(self, name: str) -> tuple[str, QParams | None]:
        """The tensor to read for the float value `name`, and how to dequantise it."""
        op = self.ops.get(name)
        if op is not None and op.kind is OpKind.DEQUANTIZE:
            return op.inputs[0], _qparams(op)
        return name, None

    def _emit(self, group: _Group) -> None:
        value = group.ops[-1]
        quantize = self._stored_as(value.name)
        output = _qparams(quantize) if quantize is not None else None
        try:
            if group.excitation is not None:
                call = self._excite(group, _dtype(output))
            elif group.anchor.kind is OpKind.MEAN:
                call = self._pool(group.anchor, _dtype(output))
            else:
                call = self._convolve(group, _dtype(output))
        except KernelError as error:
            raise _fail(group.anchor, f"this {group.anchor.kind}: {error}") from error
        written = quantize.name if quantize is not None else value.name
        self._write(replace(call, output=written, params=replace(call.params, output=output)))

    def _write(self, call: KernelCall) -> None:
        expected = call.kernel.output_shape
        shape = self.shapes[call.output]
        if expected != (prod(shape[2:]), shape[1]):
            raise AssertionError(f"{call.site}: kernel writes {expected} for a value {shape}")
        self.calls.append(call)

    def _integer_input(self, op: Op) -> QParams:
        quantize = self.ops.get(op.inputs[0])
        if quantize is None or quantize.kind is not OpKind.QUANTIZE:
            raise _fail(op, f"{op.kind} whose input is not a quantised tensor")
        qparams = _qparams(quantize)
        if qparams.zero_point != int(op.params["input_zero_point"]):
            raise _fail(op, f"{op.kind} whose zero point differs from its input's")
        return qparams

    def _convolve(self, group: _Group, output: DType) -> KernelCall:
        op, weight = group.anchor, group.anchor.params["weight"]
        source: str = op.inputs[0]
        integer = self._integer_input(op) if op.kind in _INTEGER else None
        inputs: tuple[str, ...] = (source,)
        residual, residual_type = None, None
        if group.residual is not None:
            name, residual = self._load(group.residual)
            inputs, residual_type = (source, name), _dtype(residual)
        params = LayerParams(
            weight=weight,
            bias=op.params["bias"],
            scale=op.params.get("scale"),
            input=integer,
            residual=residual,
        )
        shape, activation, dtype = self.shapes[source], group.activation, _dtype(integer)
        bits = held_bits(op.weight_bits)
        kernel: Kernel
        if op.kind is OpKind.WEIGHT_ONLY_LINEAR:
            kernel = WeightOnlyGemm(
                1, shape[1], len(weight), bits, op.group_size, activation, residual_type, output
            )
            return KernelCall(op.site, kernel, inputs, "", params)
        if len(weight.shape) == 2:
            kernel = Gemm(
                1, shape[1], len(weight), dtype, activation, residual_type, output,
                weight_bits=bits,
            )  # fmt: skip
            return KernelCall(op.site, kernel, inputs, "", params)
        window = weight.shape[2]
        if weight.shape[3] != window or op.padding != window // 2:
            raise _fail(op, f"a {weight.shape[2:]} convolution padded by {op.padding}")
        height, width = shape[2:]
        nchw = source == self.graph.input
        if _is_depthwise(op):
            if nchw:
                raise _fail(op, "a depthwise convolution of the network's input")
            kernel = Depthwise(
                height, width, shape[1], window, op.stride, dtype, activation, output,
                weight_bits=bits,
            )  # fmt: skip
        elif op.groups != 1:
            raise _fail(op, f"a convolution of {op.groups} groups over {shape[1]} channels")
        elif window == 1 and op.stride == 1 and not nchw:
            kernel = Gemm(
                height * width, shape[1], len(weight), dtype, activation, residual_type, output,
                weight_bits=bits,
            )  # fmt: skip
        else:
            kernel = Conv(
                height, width, shape[1], len(weight), window, op.stride,
                "nchw" if nchw else "nhwc", dtype, activation, residual_type, output,
                weight_bits=bits,
            )  # fmt: skip
        return KernelCall(op.site, kernel, inputs, "", params)

    def _pixels(self, op: Op) -> tuple[str, QParams | None, int, int]:
        """A pooled map: the stored tensor, its quantisation, pixels, channels."""
        shape = self.shapes[op.inputs[0]]
        if op.inputs[0] == self.graph.input:
            raise _fail(op, "pooling of the network's input")
        name, qparams = self._load(op.inputs[0])
        return name, qparams, prod(shape[2:]), shape[1]

    def _excite(self, group: _Group, output: DType) -> KernelCall:
        assert group.excitation is not None
        reduce, expand = group.excitation
        name, qparams, pixels, channels = self._pixels(group.anchor)
        first, second = (op.params["weight"].reshape(-1, op.params["weight"].shape[1])
                         for op in (reduce, expand))  # fmt: skip
        kernel = SqueezeExcite(pixels, channels, len(first), _dtype(qparams), output)
        params = LayerParams(
            weight=first,
            bias=reduce.params["bias"],
            expand_weight=second,
            expand_bias=expand.params["bias"],
            input=qparams,
        )
        return KernelCall(_parent(reduce.site, expand.site), kernel, (name,), "", params)

    def _pool(self, op: Op, output: DType) -> KernelCall:
        name, qparams, pixels, channels = self._pixels(op)
        kernel = GlobalPool(pixels, channels, _dtype(qparams), output)
        return KernelCall(op.site, kernel, (name,), "", LayerParams(input=qparams))

    def _emit_quantize(self, op: Op) -> None:
        if op.inputs[0] == self.graph.input:
            raise _fail(op, "quantisation of the network's input")
        kernel = Quantize(prod(op.shape[2:]), op.shape[1])
        params = LayerParams(output=_qparams(op))
        self._write(KernelCall(op.site, kernel, op.inputs, op.name, params))

    def _emit_dequantize(self, op: Op) -> None:
        kernel = Dequantize(prod(op.shape[2:]), op.shape[1])
        params = LayerParams(input=_qparams(op))
        self._write(KernelCall(op.site, kernel, op.inputs, op.name, params))


def _simplify(graph: Graph) -> tuple[list[Op], str]:
    """Without reshapes (pixels of a 1x1 map are its channels) and repeated quantisations."""
    alias: dict[str, str] = {}
    known: dict[tuple[OpKind, str, QParams], str] = {}
    ops: list[Op] = []
    for original in graph.ops:
        inputs = tuple(alias.get(name, name) for name in original.inputs)
        op = replace(original, inputs=inputs)
        if op.kind is OpKind.RESHAPE:
            alias[op.name] = inputs[0]
            continue
        if op.kind in (OpKind.QUANTIZE, OpKind.DEQUANTIZE):
            first = known.setdefault((op.kind, inputs[0], _qparams(op)), op.name)
            if first != op.name:
                alias[op.name] = first
                continue
        ops.append(op)
    return ops, alias.get(graph.output, graph.output)


def _is_depthwise(op: Op) -> bool:
    weight = op.params["weight"]
    return op.groups > 1 and op.groups == len(weight) and weight.shape[1] == 1


def _qparams(op: Op) -> QParams:
    return QParams(float(op.params["scale"]), int(op.params["zero_point"]))


def _dtype(qparams: QParams | None) -> DType:
    return "float32" if qparams is None else "uint8"


def _parent(first: str, second: str) -> str:
    """`se` for `se.reduce` and `se.expand`."""
    shared = first.rpartition(".")[0]
    return shared if shared and shared == second.rpartition(".")[0] else first


def _fail(op: Op, what: str) -> UnsupportedOperatorError:
    return UnsupportedOperatorError(
        f"no kernel template for {what} (node {op.name}, module {op.site!r})"
    )
