"""The ONNX twin of a subnet, with the same weights.

Written operator by operator from the traced graph. Quantised layers become the QDQ form that ONNX
Runtime fuses into integer kernels: DequantizeLinear on the uint8 input, on the int8 weight (one
scale per output channel) and on the int32 bias (input scale times weight scale).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compilers.check import compare
from compilers.errors import UnsupportedOperatorError
from compilers.graph import Graph, Op, OpKind
from spaces.files import atomic_write_bytes

OPSET = 17
GROUPS_OPSET = 21
"""Since this version DequantizeLinear knows groups of inputs and int4."""

IR_VERSION = 10
EXACT_TOLERANCE = 1e-3
"""Largest difference of the logits of most inputs without optimisations."""

BATCH = "N"
"""Name of the symbolic batch dimension of the input and the output."""


def export_onnx(graph: Graph, path: Path) -> None:
    """Write `graph` as a checked ONNX model with a symbolic batch.

    Raises:
        UnsupportedOperatorError: An integer layer reads something that was not quantised.
    """
    atomic_write_bytes(path, onnx_model(graph).SerializeToString())


def onnx_model(graph: Graph) -> Any:
    """The `onnx.ModelProto` of `graph`, checked by `onnx.checker`."""
    import onnx
    from onnx import TensorProto, helper

    writer = _Writer(graph)
    for op in graph.ops:
        writer.op(op)
    output = helper.make_tensor_value_info(
        graph.output, TensorProto.FLOAT, [BATCH, *graph.shapes()[graph.output][1:]]
    )
    x = helper.make_tensor_value_info(
        graph.input, TensorProto.FLOAT, [BATCH, *graph.input_shape[1:]]
    )
    grouped = any(op.kind is OpKind.WEIGHT_ONLY_LINEAR for op in graph.ops)
    body = helper.make_graph(writer.nodes, "netcarve", [x], [output], writer.initializers)
    model = helper.make_model(
        body,
        producer_name="netcarve",
        opset_imports=[helper.make_opsetid("", GROUPS_OPSET if grouped else OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def run_onnx(path: Path, x: NDArray[np.float32], *, optimised: bool = True) -> NDArray[np.float32]:
    """Logits [n, classes] of inputs [n, ...], by ONNX Runtime on one thread.

    Args:
        path: The model.
        x: Inputs.
        optimised: Whether ONNX Runtime may fuse operators; otherwise it executes the model as
            written, with quantised layers in float32.
    """
    session = ort_session(path, optimised=optimised)
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def ort_session(
    path: Path,
    batch: int | None = None,
    settings: Mapping[str, str] | None = None,
    *,
    optimised: bool = True,
    threads: int = 1,
) -> Any:
    """An ONNX Runtime session.

    Args:
        path: The model.
        batch: Fixes the symbolic batch, so that shapes are known when it optimises.
        settings: Entries of its session configuration.
        optimised: Its default optimisations, or none.
        threads: Threads of one inference.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    for name, value in (settings or {}).items():
        options.add_session_config_entry(name, value)
    if batch is not None:
        options.add_free_dimension_override_by_name(BATCH, batch)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def check_onnx(
    path: Path, x: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float
) -> float:
    """Compare the model as ONNX Runtime optimises it, and exactly as it is written.

    A value on the edge between two integers may round either way (ONNX divides by the scale, the
    module multiplies by its inverse), and such a step grows on its way to the logits. So
    `tolerance` is wide for a quantised model. But such steps are rare: most inputs meet none, and
    their logits must agree closely in the model as written, where no fused kernel rounds
    differently. A wrong constant touches every input, and cannot hide.

    Args:
        path: The model.
        x: Inputs [n, C, H, W]; several, for the reason above.
        expected: The module's logits [n, classes].
        tolerance: Largest difference of any input, relative to the largest logit.

    Returns:
        The largest difference of the optimised model, relative to the largest logit.

    Raises:
        MismatchError: It exceeds `tolerance`, or the best quarter of the inputs does not agree to
            `EXACT_TOLERANCE` in the model as written; or shapes differ.
    """
    found = run_onnx(path, x, optimised=False)
    compare(found, expected, tolerance, path.name)
    best = np.argsort(np.abs(found - expected).max(axis=1))[: -(-len(x) // 4)]
    allowed = min(tolerance, EXACT_TOLERANCE)
    compare(found[best], expected[best], allowed, f"{path.name} (the best quarter of inputs)")
    return compare(run_onnx(path, x), expected, tolerance, f"{path.name}, optimised,")


class _Writer:
    def __init__(self, graph: Graph) -> None:
        self.producer = graph.producer()
        self.shapes = graph.shapes()
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        from onnx import numpy_helper

        self.initializers.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def op(self, op: Op) -> None:
        """Append the nodes of one operator."""
        inputs = list(op.inputs)
        match op.kind:
            case OpKind.CONV | OpKind.LINEAR:
                weight = self._constant(f"{op.name}.weight", op.params["weight"])
                bias = self._constant(f"{op.name}.bias", op.params["bias"])
                self._layer(op, [inputs[0], weight, bias])
            case OpKind.QCONV | OpKind.QLINEAR:
                self._layer(op, self._integer_operands(op))
            case OpKind.WEIGHT_ONLY_LINEAR:
                weight = self._grouped_weight(op)
                bias = self._constant(f"{op.name}.bias", op.params["bias"])
                self._layer(op, [inputs[0], weight, bias])
            case OpKind.QUANTIZE:
                self._node("QuantizeLinear", [inputs[0], *self._scalars(op)], op.name)
            case OpKind.DEQUANTIZE:
                self._node("DequantizeLinear", [inputs[0], *self._scalars(op)], op.name)
            case OpKind.RELU:
                self._node("Relu", inputs, op.name)
            case OpKind.HARDSWISH:
                self._node("HardSwish", inputs, op.name)
            case OpKind.HARDSIGMOID:
                self._node("HardSigmoid", inputs, op.name, alpha=1 / 6, beta=0.5)
            case OpKind.ADD:
                self._node("Add", inputs, op.name)
            case OpKind.MUL:
                self._node("Mul", inputs, op.name)
            case OpKind.MEAN:
                self._mean(op)
            case OpKind.RESHAPE:
                shape = np.array([0, *op.shape[1:]], np.int64)
                target = self._constant(f"{op.name}.shape", shape)
                self._node("Reshape", [inputs[0], target], op.name)

    def _mean(self, op: Op) -> None:
        if len(op.shape) == 4:
            self._node("GlobalAveragePool", [op.inputs[0]], op.name)
        else:
            pooled = self._node("GlobalAveragePool", [op.inputs[0]], f"{op.name}.pooled")
            self._node("Flatten", [pooled], op.name)

    def _layer(self, op: Op, operands: list[str]) -> None:
        if op.kind in (OpKind.LINEAR, OpKind.QLINEAR, OpKind.WEIGHT_ONLY_LINEAR):
            self._node("Gemm", operands, op.name, transB=1)
        else:
            self._node(
                "Conv",
                operands,
                op.name,
                strides=[op.stride] * 2,
                pads=[op.padding] * 4,
                group=op.groups,
                kernel_shape=list(op.params["weight"].shape[2:]),
            )

    def _scalars(self, op: Op) -> list[str]:
        """Scale and zero point of a (de)quantisation of activations."""
        return [
            self._constant(f"{op.name}.scale", op.params["scale"].astype(np.float32)),
            self._constant(f"{op.name}.zero_point", op.params["zero_point"].astype(np.uint8)),
        ]

    def _integer_operands(self, op: Op) -> list[str]:
        quantize = self.producer.get(op.inputs[0])
        if quantize is None or quantize.kind is not OpKind.QUANTIZE:
            raise UnsupportedOperatorError(
                f"{op.kind} of a tensor that was not quantised (module {op.site!r})"
            )
        scale = op.params["scale"].astype(np.float64)
        weight_scale = (scale / float(quantize.params["scale"])).astype(np.float32)
        x = self._node(
            "DequantizeLinear",
            [quantize.name, f"{quantize.name}.scale", f"{quantize.name}.zero_point"],
            f"{op.name}.x",
        )
        return [
            x,
            self._dequantized(op, "weight", weight_scale),
            self._dequantized(op, "bias", op.params["scale"]),
        ]

    def _grouped_weight(self, op: Op) -> str:
        """The float32 weight of integers with one scale per group of inputs; int4 where it fits."""
        from onnx import TensorProto, helper

        name, weight = f"{op.name}.weight", op.params["weight"]
        integers = self._constant(f"{name}.integers", weight)
        if op.attributes["weight_bits"] == 4:
            self.initializers[-1] = helper.make_tensor(
                integers, TensorProto.INT4, weight.shape, weight.ravel()
            )
        scales = self._constant(f"{name}.scale", op.params["scale"])
        return self._node(
            "DequantizeLinear",
            [integers, scales],
            name,
            axis=1,
            block_size=op.attributes["group_size"],
        )

    def _dequantized(self, op: Op, role: str, scale: NDArray[np.float32]) -> str:
        name = f"{op.name}.{role}"
        integers = self._constant(f"{name}.integers", op.params[role])
        scales = self._constant(f"{name}.scale", scale)
        zeros = np.zeros(scale.shape, op.params[role].dtype)
        return self._node(
            "DequantizeLinear",
            [integers, scales, self._constant(f"{name}.zero_point", zeros)],
            name,
            axis=0,
        )
