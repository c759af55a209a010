"""Which kernel executes a group of fused operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

from compilers.graph import Op, OpKind, fail
from compilers.kernels import (
    Attention,
    AvgPool,
    Binary,
    Concat,
    Conv,
    Copy,
    Depthwise,
    Embedding,
    Gemm,
    GlobalPool,
    MaxPool,
    Norm,
    Softmax,
    Unary,
    WeightOnlyGemm,
)
from compilers.kernels.base import DType, Kernel, LayerParams
from compilers.kernels.epilogue import Combine
from compilers.kernels.nibbles import held_bits
from spaces.layer_spec import Activation

INTEGER = (OpKind.QCONV, OpKind.QLINEAR)
QUANTISED = (*INTEGER, OpKind.WEIGHT_ONLY_LINEAR)
LAYERS = (OpKind.CONV, OpKind.LINEAR, *QUANTISED)
NORMS = (OpKind.LAYER_NORM, OpKind.RMS_NORM)
ACTIVATIONS = {
    OpKind.RELU: Activation.RELU,
    OpKind.HARDSWISH: Activation.HARDSWISH,
    OpKind.GELU: Activation.GELU,
    OpKind.SILU: Activation.SILU,
}
COMBINES: dict[OpKind, Combine] = {OpKind.ADD: "add", OpKind.MUL: "multiply"}


@dataclass(frozen=True, slots=True, eq=False)
class KernelCall:
    """One call of a compiled kernel.

    Attributes:
        site: The module that it executes.
        kernel: What is called.
        inputs: Names of the tensors and constants that it reads, in the order of its arguments.
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
    """Kernel calls in execution order, from one input to one output.

    Attributes:
        input: Name of the input.
        input_shape: Its shape.
        calls: The calls.
        output: Name of the tensor that is the result, [rows, columns].
        input_dtype: `float32`, or `int64` for tokens.
        output_shape: Shape of the result in the module; the tensor holds it row-major.
        constants: Operands that do not depend on the input, by name.
    """

    input: str
    input_shape: tuple[int, ...]
    calls: tuple[KernelCall, ...]
    output: str
    input_dtype: str
    output_shape: tuple[int, ...]
    constants: Mapping[str, NDArray[Any]]


@dataclass(slots=True, eq=False)
class Group:
    """Operators that one kernel executes; `ops[-1]` gives the place in the order of execution.

    Attributes:
        anchor: The operator that decides the kernel.
        ops: All of them, in order.
        params: The anchor's parameters, factors and offsets per channel folded in.
        activation: Applied to the anchor's result.
        residual: What is added to it, or multiplied with it.
        combine: Which of both.
        activation_last: Whether the activation follows the residual.
        excitation: The two layers of a squeeze-and-excite.
    """

    anchor: Op
    ops: list[Op]
    params: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    activation: Activation = Activation.NONE
    residual: str | None = None
    combine: Combine = "add"
    activation_last: bool = False
    excitation: tuple[Op, Op] | None = None


def layer_kernel(
    group: Group, source: tuple[int, ...], dtype: DType, residual: DType | None, output: DType
) -> Kernel:
    """The kernel of a convolution or linear layer.

    Args:
        group: Its anchor is the layer.
        source: Shape of the tensor that it reads: [rows, columns], or the network's [1, C, H, W].
        dtype: Of that tensor.
        residual: Of the residual.
        output: Of the result.

    Raises:
        KernelError: The template does not cover the shape.
        UnsupportedOperatorError: No template has this geometry.
    """
    op, weight = group.anchor, group.anchor.params["weight"]
    bits = held_bits(op.attributes.get("weight_bits", 8))
    tail = (group.activation, residual, output, group.combine, group.activation_last)
    if op.kind is OpKind.WEIGHT_ONLY_LINEAR:
        size = op.attributes["group_size"]
        return WeightOnlyGemm(source[0], source[1], len(weight), bits, size, *tail)
    if weight.ndim == 2:
        return Gemm(source[0], source[1], len(weight), dtype, *tail, weight_bits=bits)
    window = weight.shape[2]
    if weight.shape[3] != window:
        raise fail(op, f"a {weight.shape[2:]} convolution")
    nchw = len(source) == 4
    channels = source[1]
    height, width = op.attributes["height"], op.attributes["width"]
    if is_depthwise(op):
        if op.padding != window // 2:
            raise fail(op, f"a depthwise {weight.shape[2:]} convolution padded by {op.padding}")
        return Depthwise(
            height, width, channels, window, op.stride, dtype, group.activation, output,
            weight_bits=bits,
        )  # fmt: skip
    if op.groups != 1:
        raise fail(op, f"a convolution of {op.groups} groups over {channels} channels")
    layout: Literal["nchw", "nhwc"] = "nchw" if nchw else "nhwc"
    shape = (height, width, channels, len(weight), window, op.stride)
    return Conv(*shape, layout, dtype, *tail, op.padding, weight_bits=bits)


def other_kernel(
    group: Group, shapes: Mapping[str, tuple[int, ...]], dtype: DType, output: DType
) -> Kernel:
    """The kernel of any other operator.

    Args:
        group: Its anchor is the operator.
        shapes: Of stored tensors.
        dtype: Of the tensor that it reads.
        output: Of the result.

    Raises:
        KernelError: The template does not cover the shape.
        UnsupportedOperatorError: There is no template.
    """
    op, given = group.anchor, group.anchor.attributes
    source = shapes[op.inputs[0]]
    rows, columns = op.shape
    match op.kind:
        case OpKind.MEAN:
            return GlobalPool(source[0], columns, dtype, output)
        case OpKind.LAYER_NORM | OpKind.RMS_NORM:
            centred = op.kind is OpKind.LAYER_NORM
            return Norm(rows, columns, given["epsilon"], centred, dtype, output)
        case OpKind.SOFTMAX:
            return Softmax(rows, columns)
        case OpKind.ATTENTION:
            rope, bias = bool(op.params), len(op.inputs) > 3
            return Attention(
                **given, rope=rope, bias=bias, activation=group.activation, output_dtype=output
            )
        case OpKind.MAX_POOL | OpKind.AVG_POOL:
            pool = MaxPool if op.kind is OpKind.MAX_POOL else AvgPool
            window = (given["kernel"], op.stride, op.padding)
            return pool(given["height"], given["width"], columns, *window, dtype)
        case OpKind.EMBEDDING:
            return Embedding(rows, len(op.params["weight"]), columns)
        case OpKind.COPY:
            strides = (given["sizes"], given["strides"], given["offset"])
            return Copy(source, rows, columns, *strides, dtype)
        case OpKind.CONCAT:
            axis = given["axis"]
            sizes = tuple(shapes[name][axis] for name in op.inputs)
            return Concat(sizes, op.shape[1 - axis], axis, dtype)
        case OpKind.ADD | OpKind.MUL:
            broadcast = shapes[op.inputs[1]][0] < rows
            combine = COMBINES[op.kind]
            return Binary(rows, columns, combine, broadcast, group.activation, "float32", output)
    if op.kind in ACTIVATIONS:
        return Unary(rows, columns, ACTIVATIONS[op.kind], output)
    raise fail(op, f"operator {op.kind} that follows no kernel it could be fused into")


def is_depthwise(op: Op) -> bool:
    """Whether a convolution treats each channel by itself."""
    weight = op.params["weight"]
    return weight.ndim == 4 and op.groups > 1 and op.groups == len(weight) and weight.shape[1] == 1
