"""The operator graph of an extracted subnet: what is computed, before kernels are chosen.

`frontend` makes it from Relax, `fusion` turns it into kernel calls, `onnx_export` into ONNX. It
holds no network's name: any module made of these operators can be carried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from numpy.typing import NDArray


class OpKind(StrEnum):
    """What an operator computes. Tensors are NCHW or `[N, C]`, N = 1.

    The parameters of an op (`Op.params`) by kind:

    - `conv`, `linear`: `weight` float32 `[O, I/g, k, k]` or `[O, I]`, `bias` float32 `[O]`
    - `qconv2d`, `qlinear`: `weight` int8, `bias` int32 `[O]`, `scale` float32 `[O]`,
      `input_zero_point` int32 `[]`; the result is float32
    - `weight_only_linear`: `weight` int8 `[O, I]`, `bias` float32 `[O]`, `scale` float32
      `[O, groups of group_size inputs]`; computes in float32
    - `quantize` (float32 to uint8), `dequantize` (back): `scale` float32 `[]`,
      `zero_point` int32 `[]`
    - `mean`: over height and width; `reshape`: between `[N, C]` and `[N, C, 1, 1]`
    - `mul`: a map times one factor per channel; `add`: two tensors of equal shape
    - `unpack`: stored weights of fewer than 8 bits as int8; lifting computes it
    """

    CONV = "conv"
    LINEAR = "linear"
    QCONV = "qconv2d"
    QLINEAR = "qlinear"
    WEIGHT_ONLY_LINEAR = "weight_only_linear"
    UNPACK = "unpack"
    QUANTIZE = "quantize"
    DEQUANTIZE = "dequantize"
    RELU = "relu"
    HARDSWISH = "hardswish"
    HARDSIGMOID = "hardsigmoid"
    ADD = "add"
    MUL = "mul"
    MEAN = "mean"
    RESHAPE = "reshape"


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    """One operator.

    Attributes:
        name: Name of the value that it produces, unique in its graph.
        kind: What it computes.
        inputs: Names of the values that it reads.
        shape: Shape of its result.
        site: Path of the module that it came from, for messages and reports.
        params: Constant tensors by role, see `OpKind`.
        stride: Step of a convolution's window, pixels.
        padding: Zeros at each border of a convolution's input, pixels.
        groups: Channel groups of a convolution.
        weight_bits: Width that integer weights fit.
        group_size: Inputs that share one scale of a weight-only layer.
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
    weight_bits: int = 8
    group_size: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """Operators in an order in which they can be computed, from one input to one output."""

    input: str
    input_shape: tuple[int, ...]
    ops: tuple[Op, ...]
    output: str

    def producer(self) -> dict[str, Op]:
        """Value name -> the op that produces it; the graph's input has none."""
        return {op.name: op for op in self.ops}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Value name -> shape, the graph's input included."""
        return {self.input: self.input_shape, **{op.name: op.shape for op in self.ops}}
