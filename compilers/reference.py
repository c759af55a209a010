"""What an operator graph means: each operator as PyTorch computes it in the traced module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from compilers.graph import Graph, Op, OpKind
from compilers.views import View
from supernet import integer_ops

_POINTWISE: dict[OpKind, Callable[[Tensor], Tensor]] = {
    OpKind.RELU: F.relu,
    OpKind.HARDSWISH: F.hardswish,
    OpKind.HARDSIGMOID: F.hardsigmoid,
    OpKind.GELU: F.gelu,
    OpKind.SILU: F.silu,
    OpKind.NEG: torch.neg,
    OpKind.RSQRT: torch.rsqrt,
}


def constants(graph: Graph) -> dict[str, Tensor]:
    """The graph's constants as operands of `evaluate`."""
    return {name: torch.from_numpy(np.array(array)) for name, array in graph.constants.items()}


def evaluate(op: Op, *operands: Tensor) -> Tensor:
    """The result of one operator.

    Args:
        op: The operator.
        operands: What it reads, in the order of `op.inputs`, in the shapes of the graph.
    """
    x = operands[0]
    params = {role: torch.from_numpy(np.array(array)) for role, array in op.params.items()}
    if op.kind in _POINTWISE:
        return _POINTWISE[op.kind](x)
    match op.kind:
        case OpKind.CONV:
            weight, bias = params["weight"], params["bias"]
            return F.conv2d(x, weight, bias, op.stride, op.padding, 1, op.groups)
        case OpKind.LINEAR:
            return F.linear(x, params["weight"], params["bias"])
        case OpKind.QCONV | OpKind.QLINEAR:
            return _integer_layer(op, x, params)
        case OpKind.WEIGHT_ONLY_LINEAR:
            roles = ("weight", "bias", "scale")
            numbers = (op.attributes["group_size"], op.attributes["weight_bits"])
            return integer_ops.weight_only_linear(x, *(params[role] for role in roles), *numbers)
        case OpKind.QUANTIZE:
            return integer_ops.quantize(x, params["scale"], params["zero_point"])
        case OpKind.DEQUANTIZE:
            return integer_ops.dequantize(x, params["scale"], params["zero_point"])
        case OpKind.ADD:
            return x + operands[1]
        case OpKind.MUL:
            return x * operands[1]
        case OpKind.MEAN:
            return x.mean(op.attributes["axes"], keepdim=len(op.shape) == x.dim())
        case OpKind.MAX_POOL:
            return F.max_pool2d(x, op.attributes["kernel"], op.stride, op.padding)
        case OpKind.AVG_POOL:
            window = (op.attributes["kernel"], op.stride, op.padding)
            return F.avg_pool2d(x, *window, count_include_pad=False)
        case OpKind.BATCH_NORM:
            channels = (-1,) + (1,) * (x.dim() - 2)
            return x * params["weight"].view(channels) + params["bias"].view(channels)
        case OpKind.SOFTMAX:
            return x.softmax(-1)
        case OpKind.LAYER_NORM:
            epsilon = op.attributes["epsilon"]
            return F.layer_norm(x, x.shape[-1:], params["weight"], params["bias"], epsilon)
        case OpKind.RMS_NORM:
            return F.rms_norm(x, x.shape[-1:], params["weight"], op.attributes["epsilon"])
        case OpKind.EMBEDDING:
            return F.embedding(x, params["weight"])
        case OpKind.ROPE:
            return _rotary(op, x, params)
        case OpKind.ATTENTION:
            return _attention(op, *operands)
        case OpKind.RESHAPE:
            return x.reshape(op.shape)
        case OpKind.EXPAND:
            return x.expand(op.shape)
        case OpKind.PERMUTE:
            return x.permute(op.attributes["axes"])
        case OpKind.SLICE:
            axis = op.attributes["axis"]
            return x.narrow(axis, op.attributes["start"], op.shape[axis])
        case OpKind.CONCAT:
            return torch.cat(operands, op.attributes["axis"])
    raise AssertionError(f"{op.kind} is no operator of a traced module")


def _integer_layer(op: Op, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
    arguments = [params[role] for role in ("input_zero_point", "weight", "bias", "scale")]
    if op.kind is OpKind.QLINEAR:
        return integer_ops.qlinear(x, *arguments, op.attributes["weight_bits"])
    geometry = (op.stride, op.padding, op.groups)
    return integer_ops.qconv2d(x, *arguments, *geometry, op.attributes["weight_bits"])


def _rotary(op: Op, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
    shape = [1] * x.dim()
    shape[op.attributes["axis"]], shape[-1] = params["cos"].shape
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return x * params["cos"].view(shape) + turned * params["sin"].view(shape)


def _attention(op: Op, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    scale, causal = op.attributes["scale"], op.attributes["causal"]
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(
        q, k, v, bias, is_causal=causal, scale=scale, enable_gqa=grouped
    )


def from_stored(array: NDArray[Any], view: View) -> Tensor:
    """A tensor of the graph, given what kernels store: a [rows, columns] array, and its view."""
    return torch.from_numpy(np.array(view.read(array)))
