"""What an operator graph means: each operator as PyTorch computes it in the extracted module."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from compilers.graph import Op, OpKind
from supernet import integer_ops


def evaluate(op: Op, x: Tensor, other: Tensor | None = None) -> Tensor:
    """The result of one operator.

    Args:
        op: The operator.
        x: Its first operand, NCHW or [N, C].
        other: Its second operand, for `add` and `mul`.
    """
    constants = {role: torch.from_numpy(np.array(array)) for role, array in op.params.items()}
    match op.kind:
        case OpKind.CONV:
            weight, bias = constants["weight"], constants["bias"]
            return F.conv2d(x, weight, bias, op.stride, op.padding, 1, op.groups)
        case OpKind.LINEAR:
            return F.linear(x, constants["weight"], constants["bias"])
        case OpKind.QCONV:
            return integer_ops.qconv2d(
                x,
                constants["input_zero_point"],
                constants["weight"],
                constants["bias"],
                constants["scale"],
                op.stride,
                op.padding,
                op.groups,
                op.weight_bits,
            )
        case OpKind.WEIGHT_ONLY_LINEAR:
            return integer_ops.weight_only_linear(
                x,
                constants["weight"],
                constants["bias"],
                constants["scale"],
                op.group_size,
                op.weight_bits,
            )
        case OpKind.QLINEAR:
            return integer_ops.qlinear(
                x,
                constants["input_zero_point"],
                constants["weight"],
                constants["bias"],
                constants["scale"],
                op.weight_bits,
            )
        case OpKind.QUANTIZE:
            return integer_ops.quantize(x, constants["scale"], constants["zero_point"])
        case OpKind.DEQUANTIZE:
            return integer_ops.dequantize(x, constants["scale"], constants["zero_point"])
        case OpKind.RELU:
            return F.relu(x)
        case OpKind.HARDSWISH:
            return F.hardswish(x)
        case OpKind.HARDSIGMOID:
            return F.hardsigmoid(x)
        case OpKind.MEAN:
            return x.mean((2, 3), keepdim=len(op.shape) == 4)
        case OpKind.RESHAPE:
            return x.reshape(op.shape)
    assert other is not None, op.kind
    return x + other if op.kind is OpKind.ADD else x * other


def from_stored(array: NDArray[np.generic], shape: tuple[int, ...]) -> Tensor:
    """A tensor as kernels store it, [pixels, C], in the graph's shape, [1, C, H, W] or [1, C]."""
    tensor = torch.from_numpy(np.array(array))
    return tensor.T.reshape(shape).contiguous() if len(shape) == 4 else tensor.reshape(shape)
