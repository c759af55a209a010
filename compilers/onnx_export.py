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
from compilers.graph import Graph, OpKind
from compilers.onnx_nodes import NodeWriter
from spaces.files import atomic_write_bytes

IR_VERSION = 10
_FLOAT32_PRODUCTS = {"session.qdq_matmulnbits_accuracy_level": "1"}
"""By default ONNX Runtime quantises what it multiplies with int4 weights to 8 bits."""

EXACT_TOLERANCE = 1e-3
"""Largest difference of the logits of most inputs without optimisations."""

BATCH = "N"
"""Name of the symbolic batch dimension of the input and the output."""


def export_onnx(graph: Graph, path: Path) -> None:
    """Write `graph` as a checked ONNX model.

    Its batch is symbolic, or 1 where operators mix what belongs to different inputs (a class token
    is appended to one input).

    Raises:
        UnsupportedOperatorError: An integer layer reads something that was not quantised.
    """
    atomic_write_bytes(path, onnx_model(graph).SerializeToString())


def onnx_model(graph: Graph) -> Any:
    """The `onnx.ModelProto` of `graph`, checked by `onnx.checker`."""
    import onnx
    from onnx import TensorProto, helper

    writer = NodeWriter(graph)
    for op in graph.ops:
        writer.op(op)
    batch = BATCH if _any_batch(graph) else 1
    output = helper.make_tensor_value_info(
        graph.output, TensorProto.FLOAT, [batch, *graph.shapes()[graph.output][1:]]
    )
    kind = TensorProto.FLOAT if graph.input_dtype == "float32" else TensorProto.INT64
    x = helper.make_tensor_value_info(graph.input, kind, [batch, *graph.input_shape[1:]])
    body = helper.make_graph(writer.nodes, "netcarve", [x], [output], writer.initializers)
    model = helper.make_model(
        body,
        producer_name="netcarve",
        opset_imports=[helper.make_opsetid("", writer.opset)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def run_onnx(path: Path, x: NDArray[Any], *, optimised: bool = True) -> NDArray[np.float32]:
    """Results [n, ...] of inputs [n, ...], by ONNX Runtime on one thread.

    Args:
        path: The model.
        x: Inputs.
        optimised: Whether ONNX Runtime may fuse operators, though not into products that
            quantise what weight-only layers read; otherwise it executes the model as written,
            with quantised layers in float32.
    """
    session = ort_session(path, settings=_FLOAT32_PRODUCTS, optimised=optimised)
    given = session.get_inputs()[0]
    batches = [x] if given.shape[0] == BATCH else np.split(x, len(x))
    return np.concatenate([session.run(None, {given.name: batch})[0] for batch in batches])


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
    path: Path, x: NDArray[Any], expected: NDArray[np.float32], tolerance: float
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
    best = np.argsort(np.abs(found - expected).reshape(len(x), -1).max(axis=1))[: -(-len(x) // 4)]
    allowed = min(tolerance, EXACT_TOLERANCE)
    compare(found[best], expected[best], allowed, f"{path.name} (the best quarter of inputs)")
    return compare(run_onnx(path, x), expected, tolerance, f"{path.name}, optimised,")


def _any_batch(graph: Graph) -> bool:
    """Whether every operator treats the inputs of a batch one by one."""
    for op in graph.ops:
        first = 0
        if op.kind is OpKind.PERMUTE:
            first = op.attributes["axes"][0]
        elif op.kind in (OpKind.SLICE, OpKind.CONCAT):
            first = int(op.attributes["axis"] == 0)
        constant = op.kind is OpKind.CONCAT and any(name in graph.constants for name in op.inputs)
        means = op.kind is OpKind.MEAN and 0 in op.attributes["axes"]
        if first != 0 or constant or means or op.shape[:1] != (1,):
            return False
    return True
