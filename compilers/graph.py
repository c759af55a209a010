"""The operator graph of a network: what is computed, before kernels are chosen.

`frontend` makes it from an exported program, `storage` and `fusion` turn it into kernel calls,
`onnx_export` into ONNX. It holds no network's name: any module made of these operators can be
carried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from numpy.typing import NDArray

from compilers.errors import UnsupportedOperatorError


class OpKind(StrEnum):
    """What an operator computes; shapes are PyTorch's, batch 1.

    The parameters (`Op.params`) and attributes (`Op.attributes`) of an op by kind:

    - `conv`, `linear`: `weight` float32 `[O, I/g, k, k]` or `[O, I]`, `bias` float32 `[O]`
    - `qconv2d`, `qlinear`: `weight` int8, `bias` int32 `[O]`, `scale` float32 `[O]`,
      `input_zero_point` int32 `[]`; the result is float32
    - `weight_only_linear`: `weight` int8 `[O, I]`, `bias` float32 `[O]`, `scale` float32
      `[O, groups of group_size inputs]`; computes in float32
    - these three have an attribute `weight_bits`, the width that the weight fits
    - `quantize` (float32 to uint8), `dequantize` (back): `scale` float32 `[]`,
      `zero_point` int32 `[]`
    - `add`, `mul`: operands broadcast; either may be a constant of the graph
    - `mean`: over `axes`; kept as size 1 when the result has as many axes as the operand
    - `max_pool`, `avg_pool`: over a square window of side `kernel`; padding does not count
    - `batch_norm`: `weight`, `bias` float32 `[C]` of axis 1, running statistics folded in
    - `layer_norm`: `weight`, `bias` float32 `[C]` of the last axis, `epsilon`; `rms_norm` has no
      bias
    - `embedding`: `weight` float32 `[V, C]`; rows at int64 indices
    - `rope`: `cos`, `sin` float32 `[T, d]`: x * cos + rotate_half(x) * sin, where rotate_half is
      (-x2, x1) of the halves of the last axis, and axis `axis` counts tokens
      (Su et al. 2021, "RoFormer", in the form of Hugging Face's Llama)
    - `attention`: q `[1, h, T, d]`, k `[1, g, S, d]`, v `[1, g, S, e]`, h a multiple of g,
      [a constant float32 `[h, T, S]` that is added before the softmax]; `scale`, `causal`
    - `softmax`: over the last axis
    - `reshape`, `expand`: to the result's shape; `permute`: by `axes`; `slice`: of axis `axis`,
      from `start`, as long as the result; `concat`: along `axis`
    - `copy` exists only behind `storage`: a strided read of a stored tensor
    """

    CONV = "conv"
    LINEAR = "linear"
    QCONV = "qconv2d"
    QLINEAR = "qlinear"
    WEIGHT_ONLY_LINEAR = "weight_only_linear"
    QUANTIZE = "quantize"
    DEQUANTIZE = "dequantize"
    RELU = "relu"
    HARDSWISH = "hardswish"
    HARDSIGMOID = "hardsigmoid"
    GELU = "gelu"
    SILU = "silu"
    NEG = "neg"
    RSQRT = "rsqrt"
    ADD = "add"
    MUL = "mul"
    MEAN = "mean"
    MAX_POOL = "max_pool"
    AVG_POOL = "avg_pool"
    BATCH_NORM = "batch_norm"
    LAYER_NORM = "layer_norm"
    RMS_NORM = "rms_norm"
    EMBEDDING = "embedding"
    ROPE = "rope"
    ATTENTION = "attention"
    SOFTMAX = "softmax"
    RESHAPE = "reshape"
    EXPAND = "expand"
    PERMUTE = "permute"
    SLICE = "slice"
    CONCAT = "concat"
    COPY = "copy"


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    """One operator.

    Attributes:
        name: Name of the value that it produces, unique in its graph.
        kind: What it computes.
        inputs: Names of the values and constants that it reads.
        shape: Shape of its result.
        site: Path of the module that it came from, for messages and reports.
        params: Constant tensors by role, see `OpKind`.
        stride: Step of a convolution's or pooling's window, pixels.
        padding: Zeros at each border of a convolution's or pooling's input, pixels.
        groups: Channel groups of a convolution.
        attributes: Numbers by name, see `OpKind`.
    """

    name: str
    kind: OpKind
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    site: str
    params: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    stride: int = 1
    padding: int = 0
    groups: int = 1
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """Operators in an order in which they can be computed, from one input to one output.

    Attributes:
        input: Name of the input.
        input_shape: Its shape, batch 1.
        ops: The operators; each reads the input, constants and results of operators before it.
        output: Name of the result.
        input_dtype: `float32`, or `int64` for tokens.
        constants: Operands that do not depend on the input, by name.
    """

    input: str
    input_shape: tuple[int, ...]
    ops: tuple[Op, ...]
    output: str
    input_dtype: str = "float32"
    constants: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def producer(self) -> dict[str, Op]:
        """Value name -> the op that produces it; the input and constants have none."""
        return {op.name: op for op in self.ops}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every value, the input and the constants included."""
        return {
            self.input: self.input_shape,
            **{name: array.shape for name, array in self.constants.items()},
            **{op.name: op.shape for op in self.ops},
        }


def fail(op: Op, what: str) -> UnsupportedOperatorError:
    """The error for an operator, or a use of it, that no kernel executes."""
    return UnsupportedOperatorError(
        f"no kernel template for {what} (node {op.name}, module {op.site!r})"
    )
