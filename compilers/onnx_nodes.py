"""Operators of the graph as nodes of ONNX, opset 17 (21 for weights with scales per group)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compilers.errors import UnsupportedOperatorError
from compilers.graph import Graph, Op, OpKind

_PLAIN = {
    OpKind.RELU: "Relu",
    OpKind.HARDSWISH: "HardSwish",
    OpKind.NEG: "Neg",
    OpKind.ADD: "Add",
    OpKind.MUL: "Mul",
}


OPSET = 17
GROUPS_OPSET = 21
"""Since this version DequantizeLinear knows groups of inputs and int4."""

_AXES_OPSET = 18
"""Since this version ReduceMean takes its axes as an operand."""


class NodeWriter:
    """Collects the nodes and initializers of one graph.

    Args:
        graph: The operator graph.

    Attributes:
        opset: Version of the operators.
        nodes: The nodes so far.
        initializers: The constants so far.
    """

    def __init__(self, graph: Graph) -> None:
        grouped = any(op.kind is OpKind.WEIGHT_ONLY_LINEAR for op in graph.ops)
        self.opset = GROUPS_OPSET if grouped else OPSET
        self.producer = graph.producer()
        self.shapes = graph.shapes()
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        for name, array in graph.constants.items():
            self._constant(name, array)

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        from onnx import numpy_helper

        self.initializers.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def _integers(self, name: str, values: Sequence[int]) -> str:
        return self._constant(name, np.array(values, np.int64))

    def _node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        node = helper.make_node(kind, list(inputs), [output], name=output, **attributes)
        self.nodes.append(node)
        return output

    def op(self, op: Op) -> None:
        """Append the nodes of one operator; the last one writes `op.name`."""
        x = op.inputs[0]
        if op.kind in _PLAIN:
            self._node(_PLAIN[op.kind], op.inputs, op.name)
            return
        match op.kind:
            case OpKind.CONV | OpKind.QCONV:
                self._convolution(op)
            case OpKind.LINEAR | OpKind.QLINEAR | OpKind.WEIGHT_ONLY_LINEAR:
                self._linear(op)
            case OpKind.QUANTIZE:
                self._node("QuantizeLinear", [x, *self._scalars(op)], op.name)
            case OpKind.DEQUANTIZE:
                self._node("DequantizeLinear", [x, *self._scalars(op)], op.name)
            case OpKind.HARDSIGMOID:
                self._node("HardSigmoid", [x], op.name, alpha=1 / 6, beta=0.5)
            case OpKind.GELU:
                self._gelu(op)
            case OpKind.SILU:
                self._node("Mul", [x, self._node("Sigmoid", [x], f"{op.name}.gate")], op.name)
            case OpKind.RSQRT:
                self._node("Reciprocal", [self._node("Sqrt", [x], f"{op.name}.root")], op.name)
            case OpKind.MEAN:
                self._mean(op)
            case OpKind.MAX_POOL:
                self._node("MaxPool", [x], op.name, **_window(op))
            case OpKind.AVG_POOL:
                self._node("AveragePool", [x], op.name, count_include_pad=0, **_window(op))
            case OpKind.BATCH_NORM:
                self._batch_norm(op)
            case OpKind.LAYER_NORM:
                gain, shift = (self._param(op, role) for role in ("weight", "bias"))
                epsilon = op.attributes["epsilon"]
                self._node("LayerNormalization", [x, gain, shift], op.name, epsilon=epsilon)
            case OpKind.RMS_NORM:
                self._rms_norm(op)
            case OpKind.EMBEDDING:
                self._node("Gather", [self._param(op, "weight"), x], op.name)
            case OpKind.ROPE:
                self._rope(op)
            case OpKind.ATTENTION:
                self._attention(op)
            case OpKind.SOFTMAX:
                self._node("Softmax", [x], op.name, axis=-1)
            case _:
                self._view(op)

    def _param(self, op: Op, role: str) -> str:
        return self._constant(f"{op.name}.{role}", op.params[role])

    # Layers

    def _convolution(self, op: Op) -> None:
        operands = self._integer_operands(op) if op.kind is OpKind.QCONV else [
            op.inputs[0], self._param(op, "weight"), self._param(op, "bias")
        ]  # fmt: skip
        self._node(
            "Conv", operands, op.name, strides=[op.stride] * 2, pads=[op.padding] * 4,
            group=op.groups, kernel_shape=list(op.params["weight"].shape[2:]),
        )  # fmt: skip

    def _linear(self, op: Op) -> None:
        flat = len(op.shape) == 2
        if op.kind is OpKind.QLINEAR:
            x, weight, bias = self._integer_operands(op)
        elif op.kind is OpKind.WEIGHT_ONLY_LINEAR:
            x, bias = op.inputs[0], self._param(op, "bias")
            weight = self._grouped_weight(op, turned=not flat)
        else:
            # Gemm alone takes a transposed weight; MatMul has its own turned.
            values = op.params["weight"]
            weight = self._constant(f"{op.name}.weight", values if flat else values.T)
            x, bias = op.inputs[0], self._param(op, "bias")
        if flat:
            self._node("Gemm", [x, weight, bias], op.name, transB=1)
        else:
            product = self._node("MatMul", [x, weight], f"{op.name}.product")
            self._node("Add", [product, bias], op.name)

    def _scalars(self, op: Op) -> list[str]:
        """Scale and zero point of a (de)quantisation of activations."""
        return [
            self._constant(f"{op.name}.scale", op.params["scale"].astype(np.float32)),
            self._constant(f"{op.name}.zero_point", op.params["zero_point"].astype(np.uint8)),
        ]

    def _integer_operands(self, op: Op) -> list[str]:
        quantize = self.producer.get(op.inputs[0])
        while quantize is not None and quantize.kind in _MOVING:
            quantize = self.producer.get(quantize.inputs[0])
        if quantize is None or quantize.kind is not OpKind.QUANTIZE:
            raise UnsupportedOperatorError(
                f"{op.kind} of a tensor that was not quantised (module {op.site!r})"
            )
        scale = op.params["scale"].astype(np.float64)
        weight_scale = (scale / float(quantize.params["scale"])).astype(np.float32)
        x = self._node(
            "DequantizeLinear",
            [op.inputs[0], f"{quantize.name}.scale", f"{quantize.name}.zero_point"],
            f"{op.name}.x",
        )
        turned = op.kind is OpKind.QLINEAR and len(op.shape) != 2
        return [
            x,
            self._dequantized(op, "weight", weight_scale, turned=turned),
            self._dequantized(op, "bias", op.params["scale"]),
        ]

    def _grouped_weight(self, op: Op, *, turned: bool) -> str:
        """The float32 weight of integers with one scale per group of inputs; int4 where it fits."""
        from onnx import TensorProto, helper

        name, weight, scale = f"{op.name}.weight", op.params["weight"], op.params["scale"]
        if turned:
            weight, scale = weight.T, scale.T
        integers = self._constant(f"{name}.integers", weight)
        if op.attributes["weight_bits"] == 4:
            self.initializers[-1] = helper.make_tensor(
                integers, TensorProto.INT4, weight.shape, weight.ravel()
            )
        size = op.attributes["group_size"]
        operands = [integers, self._constant(f"{name}.scale", scale)]
        axis = 0 if turned else 1
        return self._node("DequantizeLinear", operands, name, axis=axis, block_size=size)

    def _dequantized(
        self, op: Op, role: str, scale: NDArray[np.float32], *, turned: bool = False
    ) -> str:
        """An integer parameter, one scale per output channel; `turned` puts these last."""
        name, values = f"{op.name}.{role}", op.params[role]
        integers = self._constant(f"{name}.integers", values.T if turned else values)
        scales = self._constant(f"{name}.scale", scale)
        zeros = self._constant(f"{name}.zero_point", np.zeros(scale.shape, values.dtype))
        return self._node("DequantizeLinear", [integers, scales, zeros], name, axis=int(turned))

    def _batch_norm(self, op: Op) -> None:
        gain, shift = (self._param(op, role) for role in ("weight", "bias"))
        zeros = self._constant(f"{op.name}.mean", np.zeros_like(op.params["bias"]))
        ones = self._constant(f"{op.name}.variance", np.ones_like(op.params["bias"]))
        inputs = [op.inputs[0], gain, shift, zeros, ones]
        self._node("BatchNormalization", inputs, op.name, epsilon=0.0)

    def _rms_norm(self, op: Op) -> None:
        x, name = op.inputs[0], op.name
        square = self._node("Mul", [x, x], f"{name}.square")
        mean = self._reduced_mean(square, f"{name}.mean", [-1], kept=True)
        epsilon = np.array(op.attributes["epsilon"], np.float32)
        added = self._constant(f"{name}.epsilon", epsilon)
        root = self._node("Sqrt", [self._node("Add", [mean, added], f"{name}.sum")], f"{name}.rms")
        unit = self._node("Div", [x, root], f"{name}.unit")
        self._node("Mul", [unit, self._param(op, "weight")], name)

    def _gelu(self, op: Op) -> None:
        x, name = op.inputs[0], op.name
        root, one, half = (
            self._constant(f"{name}.{what}", np.array(value, np.float32))
            for what, value in (("root", 2**0.5), ("one", 1.0), ("half", 0.5))
        )
        error = self._node("Erf", [self._node("Div", [x, root], f"{name}.scaled")], f"{name}.erf")
        gate = self._node("Mul", [x, self._node("Add", [error, one], f"{name}.sum")], f"{name}.two")
        self._node("Mul", [gate, half], name)

    def _mean(self, op: Op) -> None:
        rank, axes = len(self.shapes[op.inputs[0]]), op.attributes["axes"]
        kept = len(op.shape) == rank
        if rank == 4 and axes == (2, 3):
            pooled = op.name if kept else f"{op.name}.pooled"
            self._node("GlobalAveragePool", op.inputs, pooled)
            if not kept:
                self._node("Flatten", [pooled], op.name)
            return
        self._reduced_mean(op.inputs[0], op.name, axes, kept=kept)

    def _reduced_mean(self, x: str, output: str, axes: Sequence[int], *, kept: bool) -> str:
        if self.opset < _AXES_OPSET:
            return self._node("ReduceMean", [x], output, axes=list(axes), keepdims=int(kept))
        operands = [x, self._integers(f"{output}.axes", axes)]
        return self._node("ReduceMean", operands, output, keepdims=int(kept))

    # Attention

    def _rope(self, op: Op) -> None:
        x, name, half = op.inputs[0], op.name, op.shape[-1] // 2
        ends = [self._integers(f"{name}.at{end}", [end]) for end in (0, half, 2 * half)]
        last = self._integers(f"{name}.last", [len(op.shape) - 1])
        first, second = (
            self._node("Slice", [x, *ends[i : i + 2], last], f"{name}.half{i}") for i in (0, 1)
        )
        turned = [self._node("Neg", [second], f"{name}.negated"), first]
        rotated = self._node("Concat", turned, f"{name}.turned", axis=-1)
        shape = [1] * len(op.shape)
        shape[op.attributes["axis"]], shape[-1] = op.params["cos"].shape
        parts = []
        for part, role in ((x, "cos"), (rotated, "sin")):
            table = self._constant(f"{name}.{role}", op.params[role].reshape(shape))
            parts.append(self._node("Mul", [part, table], f"{name}.{role}_part"))
        self._node("Add", parts, name)

    def _attention(self, op: Op) -> None:
        (q, k, v), name = op.inputs[:3], op.name
        heads, queries, keys = op.shape[1], op.shape[2], self.shapes[k][2]
        k, v = (
            self._repeated(tensor, f"{name}.{role}", heads) for role, tensor in (("k", k), ("v", v))
        )
        turned = self._node("Transpose", [k], f"{name}.turned", perm=[0, 1, 3, 2])
        scale = self._constant(f"{name}.scale", np.array(op.attributes["scale"], np.float32))
        scores = self._node("MatMul", [q, turned], f"{name}.scores")
        scores = self._node("Mul", [scores, scale], f"{name}.scaled")
        masks = list(op.inputs[3:])
        if op.attributes["causal"]:
            seen = np.tri(queries, keys, dtype=bool)
            causal = np.where(seen, 0, -np.inf).astype(np.float32)
            masks.append(self._constant(f"{name}.mask", causal))
        for i, mask in enumerate(masks):
            scores = self._node("Add", [scores, mask], f"{name}.biased{i}")
        weights = self._node("Softmax", [scores], f"{name}.weights", axis=-1)
        self._node("MatMul", [weights, v], name)

    def _repeated(self, tensor: str, name: str, heads: int) -> str:
        """Keys or values [1, g, S, d] of every head that shares them: [1, heads, S, d]."""
        _, groups, size, width = self.shapes[tensor]
        if groups == heads:
            return tensor
        count = heads // groups
        single = self._reshaped(tensor, f"{name}.single", [0, groups, 1, size, width])
        times = self._integers(f"{name}.times", [1, 1, count, 1, 1])
        several = self._node("Expand", [single, times], f"{name}.several")
        return self._reshaped(several, f"{name}.heads", [0, heads, size, width])

    def _reshaped(self, tensor: str, name: str, shape: Sequence[int]) -> str:
        return self._node("Reshape", [tensor, self._integers(f"{name}.shape", shape)], name)

    # Views

    def _view(self, op: Op) -> None:
        given, name = op.attributes, op.name
        match op.kind:
            case OpKind.RESHAPE:
                # The first axis keeps its size where it may: batches of any size pass.
                keeps = self.shapes[op.inputs[0]][:1] == op.shape[:1] == (1,)
                shape = [0, *op.shape[1:]] if keeps else op.shape
                self._reshaped(op.inputs[0], name, shape)
            case OpKind.EXPAND:
                sizes = self._integers(f"{name}.shape", op.shape)
                self._node("Expand", [op.inputs[0], sizes], name)
            case OpKind.PERMUTE:
                self._node("Transpose", op.inputs, name, perm=list(given["axes"]))
            case OpKind.SLICE:
                axis, start = given["axis"], given["start"]
                ends = [start], [start + op.shape[axis]], [axis]
                operands = [self._integers(f"{name}.{i}", value) for i, value in enumerate(ends)]
                self._node("Slice", [*op.inputs, *operands], name)
            case OpKind.CONCAT:
                self._node("Concat", op.inputs, name, axis=given["axis"])
            case _:
                raise UnsupportedOperatorError(f"{op.kind} has no ONNX twin (module {op.site!r})")


_MOVING = (
    OpKind.RESHAPE, OpKind.EXPAND, OpKind.PERMUTE, OpKind.SLICE, OpKind.MAX_POOL
)  # fmt: skip


def _window(op: Op) -> dict[str, list[int]]:
    return {
        "kernel_shape": [op.attributes["kernel"]] * 2,
        "strides": [op.stride] * 2,
        "pads": [op.padding] * 4,
    }
