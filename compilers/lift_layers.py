"""Layers, activations and arithmetic of exported programs as operators of the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from compilers.graph import OpKind
from compilers.lift import Translator, Value, op_name
from supernet.integer_ops import U8_MAX

if TYPE_CHECKING:
    from compilers.lift import Lifter

# The names that torch.export gives to operators, without their namespace; the operands come first
# in their schemas.
_UNARY = {
    "relu.default": OpKind.RELU,
    "relu_.default": OpKind.RELU,
    "hardswish.default": OpKind.HARDSWISH,
    "hardswish_.default": OpKind.HARDSWISH,
    "hardsigmoid.default": OpKind.HARDSIGMOID,
    "hardsigmoid_.default": OpKind.HARDSIGMOID,
    "silu.default": OpKind.SILU,
    "silu_.default": OpKind.SILU,
    "neg.default": OpKind.NEG,
    "rsqrt.default": OpKind.RSQRT,
}
# Operator -> kind, and for each of its parameters the argument that holds it.
_QUANTISED = {
    "quantize.default": (OpKind.QUANTIZE, {"scale": "scale", "zero_point": "zero_point"}),
    "dequantize.default": (OpKind.DEQUANTIZE, {"scale": "scale", "zero_point": "zero_point"}),
    "qconv2d.default": (
        OpKind.QCONV,
        {"input_zero_point": "zero_point", "weight": "weight", "bias": "bias", "scale": "scale"},
    ),
    "weight_only_linear.default": (
        OpKind.WEIGHT_ONLY_LINEAR,
        {"weight": "weight", "bias": "bias", "scale": "scale"},
    ),
    "qlinear.default": (
        OpKind.QLINEAR,
        {"input_zero_point": "zero_point", "weight": "weight", "bias": "bias", "scale": "scale"},
    ),
}
_ADDITIONS = ("add.Tensor", "add_.Tensor", "sub.Tensor")
_PRODUCTS = ("mul.Tensor", "mul_.Tensor", "div.Tensor")


def convolution(at: Lifter, given: dict[str, Any]) -> Value:
    """aten.conv2d: square windows, steps and paddings."""
    stride, padding = {*given["stride"]}, given["padding"]
    if isinstance(padding, str) or len({*padding}) > 1 or len(stride) > 1:
        raise at.fail("a convolution that is uneven")
    if {*given["dilation"]} != {1}:
        raise at.fail("a convolution that is dilated")
    return at.emit(
        OpKind.CONV, [given["input"]], _weights(at, given), stride=stride.pop(),
        padding=padding[0], groups=given["groups"],
    )  # fmt: skip


def linear(at: Lifter, given: dict[str, Any]) -> Value:
    """aten.linear."""
    return at.emit(OpKind.LINEAR, [given["input"]], _weights(at, given))


def _weights(at: Lifter, given: dict[str, Any]) -> dict[str, Any]:
    weight, bias = given["weight"], given["bias"]
    if bias is None and isinstance(weight, torch.Tensor):
        bias = torch.zeros(weight.shape[0])
    return {"weight": weight, "bias": bias}


def quantised(at: Lifter, given: dict[str, Any]) -> Value:
    """An operator of `supernet.integer_ops`: on integers of 0 to 255, and symmetric weights."""
    kind, roles = _QUANTISED[op_name(at.node)]
    codes = given.get("qmin", 0), given.get("qmax", U8_MAX)
    if codes != (0, U8_MAX):
        raise at.fail(f"integers from {codes[0]} to {codes[1]}; kernels execute 0 to {U8_MAX}")
    if given.get("weight_zero_point") is not None:
        raise at.fail("asymmetric integer weights; kernels execute symmetric ones")
    params = {role: given[argument] for role, argument in roles.items()}
    others = {"x", "qmin", "qmax", "weight_zero_point", *roles.values()}
    numbers = {name: n for name, n in given.items() if name not in others}
    return at.emit(kind, [given["x"]], params, **numbers)


def unary(at: Lifter, given: dict[str, Any]) -> Value:
    """An activation, or a function of each element."""
    return at.emit(_UNARY[op_name(at.node)], [next(iter(given.values()))])


def gelu(at: Lifter, given: dict[str, Any]) -> Value:
    """aten.gelu with the exact error function."""
    if given["approximate"] != "none":
        raise at.fail(f"gelu with approximate={given['approximate']!r}")
    return at.emit(OpKind.GELU, [given["self"]])


def add(at: Lifter, given: dict[str, Any]) -> Value:
    """aten.add, aten.sub of a constant."""
    other = given["other"]
    if given["alpha"] != 1:
        raise at.fail(f"an addition with alpha={given['alpha']}")
    if op_name(at.node) == "sub.Tensor":
        if isinstance(other, str):
            raise at.fail("a subtraction of two activations")
        other = -other
    return at.emit(OpKind.ADD, [given["self"], other])


def multiply(at: Lifter, given: dict[str, Any]) -> Value:
    """aten.mul, aten.div by a constant."""
    other = given["other"]
    if op_name(at.node) == "div.Tensor":
        if isinstance(other, str):
            raise at.fail("a division by an activation")
        other = 1 / other
    return at.emit(OpKind.MUL, [given["self"], other])


def power(at: Lifter, given: dict[str, Any]) -> Value:
    """aten.pow with exponent 2, aten.square."""
    if given.get("exponent", 2) != 2:
        raise at.fail(f"the power {given['exponent']}")
    return at.emit(OpKind.MUL, [given["self"], given["self"]])


def mean(at: Lifter, given: dict[str, Any]) -> Value:
    """aten.mean over axes."""
    rank = len(at.known_shape(given["self"]))
    axes = given.get("dim") or range(rank)
    return at.emit(OpKind.MEAN, [given["self"]], axes=tuple(sorted(a % rank for a in axes)))


def adaptive_pool(at: Lifter, given: dict[str, Any]) -> Value:
    """aten.adaptive_avg_pool2d to one pixel."""
    if [*given["output_size"]] != [1, 1]:
        raise at.fail(f"adaptive pooling to {given['output_size']}")
    rank = len(at.shape())
    return at.emit(OpKind.MEAN, [given["self"]], axes=(rank - 2, rank - 1))


def pool(at: Lifter, given: dict[str, Any]) -> Value:
    """aten.max_pool2d, aten.avg_pool2d: square windows, steps and paddings."""
    kernel, padding = {*given["kernel_size"]}, {*given["padding"]}
    stride = {*(given["stride"] or given["kernel_size"])}
    uneven = max(len(kernel), len(padding), len(stride)) > 1
    if uneven or given["ceil_mode"] or {*given.get("dilation", (1,))} != {1}:
        raise at.fail("pooling that is uneven, dilated or rounds its size up")
    average = op_name(at.node) == "avg_pool2d.default"
    size, border = kernel.pop(), padding.pop()
    padded = average and border and given["count_include_pad"]
    if given.get("divisor_override") is not None or padded:
        raise at.fail("average pooling that counts its padding or has a divisor")
    kind = OpKind.AVG_POOL if average else OpKind.MAX_POOL
    return at.emit(kind, [given["self"]], stride=stride.pop(), padding=border, kernel=size)


def batch_norm(at: Lifter, given: dict[str, Any]) -> Value:
    """aten.batch_norm with fixed statistics."""
    if given["training"]:
        raise at.fail("batch normalisation with the batch's statistics")
    mean, variance = given["running_mean"], given["running_var"]
    weight = torch.rsqrt(variance.double() + given["eps"])
    if given["weight"] is not None:
        weight = weight * given["weight"]
    bias = -mean * weight
    if given["bias"] is not None:
        bias = bias + given["bias"]
    params = {"weight": weight.float(), "bias": bias.float()}
    return at.emit(OpKind.BATCH_NORM, [given["input"]], params)


def layer_norm(at: Lifter, given: dict[str, Any]) -> Value:
    """aten.layer_norm, aten.rms_norm over the last axis."""
    shape = tuple(given["normalized_shape"])
    if len(shape) != 1:
        raise at.fail(f"normalisation over {len(shape)} axes")
    weight = torch.ones(shape) if given["weight"] is None else given["weight"]
    if op_name(at.node) == "rms_norm.default":
        epsilon = torch.finfo(torch.float32).eps if given["eps"] is None else given["eps"]
        return at.emit(OpKind.RMS_NORM, [given["input"]], {"weight": weight}, epsilon=epsilon)
    bias = torch.zeros(shape) if given["bias"] is None else given["bias"]
    params = {"weight": weight, "bias": bias}
    return at.emit(OpKind.LAYER_NORM, [given["input"]], params, epsilon=given["eps"])


def embedding(at: Lifter, given: dict[str, Any]) -> Value:
    """aten.embedding."""
    return at.emit(OpKind.EMBEDDING, [given["indices"]], {"weight": given["weight"]})


def attention(at: Lifter, given: dict[str, Any]) -> Value:
    """aten.scaled_dot_product_attention; its mask is a constant."""
    query, key = at.known_shape(given["query"]), at.known_shape(given["key"])
    if len(query) != 4:
        raise at.fail(f"attention of {len(query)} axes")
    if given["dropout_p"]:
        raise at.fail("attention with dropout")
    inputs, causal = [given["query"], given["key"], given["value"]], given["is_causal"]
    mask = given["attn_mask"]
    if mask is not None:
        if not isinstance(mask, torch.Tensor):
            raise at.fail("attention whose mask depends on the input")
        mask = mask.broadcast_to((1, query[1], query[2], key[2]))[0]
        boolean = mask.dtype == torch.bool
        if boolean and torch.equal(mask, torch.ones_like(mask).tril()):
            causal = True
        else:
            if boolean:
                mask = torch.where(mask, 0.0, -torch.inf)
            inputs.append(mask.contiguous())
    scale = query[3] ** -0.5 if given["scale"] is None else given["scale"]
    return at.emit(OpKind.ATTENTION, inputs, scale=float(scale), causal=bool(causal))


def softmax(at: Lifter, given: dict[str, Any]) -> Value:
    """aten.softmax over the last axis."""
    if given["dim"] not in (-1, len(at.shape()) - 1):
        raise at.fail(f"softmax over axis {given['dim']}")
    if given["dtype"] not in (None, torch.float32):
        raise at.fail(f"softmax in {given['dtype']}")
    return at.emit(OpKind.SOFTMAX, [given["self"]])


TRANSLATORS: dict[str, Translator] = {
    "conv2d.default": convolution,
    "linear.default": linear,
    "gelu.default": gelu,
    "pow.Tensor_Scalar": power,
    "square.default": power,
    "mean.dim": mean,
    "adaptive_avg_pool2d.default": adaptive_pool,
    "max_pool2d.default": pool,
    "avg_pool2d.default": pool,
    "batch_norm.default": batch_norm,
    "layer_norm.default": layer_norm,
    "rms_norm.default": layer_norm,
    "embedding.default": embedding,
    "scaled_dot_product_attention.default": attention,
    "softmax.int": softmax,
    **dict.fromkeys(_UNARY, unary),
    **dict.fromkeys(_QUANTISED, quantised),
    **dict.fromkeys(_ADDITIONS, add),
    **dict.fromkeys(_PRODUCTS, multiply),
}
"""By the names that torch.export gives to operators."""
