"""Integer operators of a quantised subnet, as `torch.library` custom ops.

An extracted subnet executes these instead of fake quantisation, so that what is evaluated is what
a compiled binary computes. `torch.export` keeps each of them as one node; `compilers` maps them to
integer kernels and to ONNX QuantizeLinear / DequantizeLinear graphs.

Activations are integers of at most 8 bits with one scale and zero point per tensor: u8, or s8 where
they are symmetric and signed. Weights are s8 (unpacked first where fewer bits are stored) with one
scale, and where they are asymmetric one zero point, per output channel; scales are already merged
with the input's scale and the following BatchNorm. With scales per group of inputs see
`grouped_ops` (Jacob et al. 2018, "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference"; unlike there the requantisation is in float32, as in
ONNX Runtime and oneDNN).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from supernet.packing import unpack_codes

U8_MAX = 255
# A float32 sum of integers is exact, in any order of summation, while it stays below 2**24.
_EXACT_FLOAT32 = 2**24


@torch.library.custom_op("netcarve::quantize", mutates_args=())
def quantize(
    x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int = 0, qmax: int = U8_MAX
) -> Tensor:
    """Quantise: clamp(round_half_even(x * (1 / scale)) + zero_point, qmin, qmax).

    Args:
        x: float32 of any shape.
        scale: float32 scalar, > 0.
        zero_point: int32 scalar in qmin..qmax.
        qmin: Smallest integer, at least 0, or at least -128.
        qmax: Largest integer, at most 255, or at most 127.

    Returns:
        uint8, or int8 if `qmin` is negative, the shape of `x`.
    """
    q = torch.round(x * torch.reciprocal(scale)) + zero_point.to(x.dtype)
    return q.clamp(qmin, qmax).to(torch.int8 if qmin < 0 else torch.uint8)


@quantize.register_fake
def _(x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int = 0, qmax: int = U8_MAX) -> Tensor:
    return torch.empty_like(x, dtype=torch.int8 if qmin < 0 else torch.uint8)


@torch.library.custom_op("netcarve::dequantize", mutates_args=())
def dequantize(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """The float32 value (x - zero_point) * scale of a u8 or s8 tensor of any shape."""
    return (x.to(torch.float32) - zero_point.to(torch.float32)) * scale


@dequantize.register_fake
def _(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    return torch.empty_like(x, dtype=torch.float32)


def exact_dtype(terms: int, weight_zero_point: Tensor | None) -> torch.dtype:
    """The fastest dtype in which `terms` products of centred inputs and weights add up exactly."""
    largest = U8_MAX * (128 if weight_zero_point is None else U8_MAX)
    return torch.float32 if terms * largest < _EXACT_FLOAT32 else torch.float64


def spread(values: Tensor, group_size: int, inputs: int) -> Tensor:
    """[O, groups] -> [O, inputs]: the value of every input's group."""
    return values.repeat_interleave(group_size, dim=1)[:, :inputs]


def _centred(weight: Tensor, zero_point: Tensor | None, dtype: torch.dtype) -> Tensor:
    """weight - zero_point of weights [O, ...] with one zero point per output channel, if any."""
    codes = weight.to(dtype)
    if zero_point is None:
        return codes
    return codes - zero_point.to(dtype).view(-1, *(1,) * (weight.dim() - 1))


def _requantise(accumulator: Tensor, bias: Tensor, scale: Tensor, axis: int) -> Tensor:
    """(accumulator + bias) * scale, the sum in exact integers, the product in float32.

    Channels are counted by `axis`.
    """
    channels = (-1,) + (1,) * (accumulator.dim() - 1 - axis)
    total = accumulator.to(torch.float64) + bias.to(torch.float64).view(channels)
    return total.to(torch.float32) * scale.view(channels)


def empty_maps(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """What a convolution of `x` [N, I, H, W] with `weight` [O, I / groups, k, k] returns, without
    its values: float32 [N, O, H', W']."""
    size = [
        (s + 2 * padding - k) // stride + 1
        for s, k in zip(x.shape[2:], weight.shape[2:], strict=True)
    ]
    return x.new_empty((x.shape[0], weight.shape[0], *size), dtype=torch.float32)


@torch.library.custom_op("netcarve::qconv2d", mutates_args=())
def qconv2d(
    x: Tensor,
    zero_point: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    stride: int,
    padding: int,
    groups: int,
    weight_bits: int = 8,
    weight_zero_point: Tensor | None = None,
) -> Tensor:
    """Integer convolution with per-channel requantisation to float32.

    Computes (conv(x - zero_point, weight - weight_zero_point[c]) + bias) * scale[c]; the
    accumulator is an exact integer and padding contributes zero. Of asymmetric weights it is also
    conv(x - zero_point, weight) - weight_zero_point[c] * sum(x - zero_point), sums over a window.

    Args:
        x: uint8 or int8 [N, I, H, W].
        zero_point: int32 scalar, the zero point of `x`.
        weight: int8 [O, I / groups, k, k].
        bias: int32 [O], in units of the accumulator.
        scale: float32 [O], > 0.
        stride: Step of the window, in pixels.
        padding: Rows and columns of zeros added at each border.
        groups: Number of channel groups; I for a depthwise convolution.
        weight_bits: Width that the weight fits; what executes it may hold it in no more.
        weight_zero_point: int8 [O] of asymmetric weights.

    Returns:
        float32 [N, O, H', W'].
    """
    dtype = exact_dtype(weight[:1].numel(), weight_zero_point)
    weights = _centred(weight, weight_zero_point, dtype)
    inputs = x.to(dtype) - zero_point.to(dtype)
    accumulator = F.conv2d(inputs, weights, None, stride, padding, 1, groups)
    return _requantise(accumulator, bias, scale, 1)


@qconv2d.register_fake
def _(
    x: Tensor,
    zero_point: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    stride: int,
    padding: int,
    groups: int,
    weight_bits: int = 8,
    weight_zero_point: Tensor | None = None,
) -> Tensor:
    return empty_maps(x, weight, stride, padding)


@torch.library.custom_op("netcarve::qlinear", mutates_args=())
def qlinear(
    x: Tensor,
    zero_point: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    weight_bits: int = 8,
    weight_zero_point: Tensor | None = None,
) -> Tensor:
    """Integer matrix product with per-channel requantisation to float32.

    Computes ((x - zero_point) @ (weight - weight_zero_point).T + bias) * scale.

    Args:
        x: uint8 or int8 [..., K].
        zero_point: int32 scalar, the zero point of `x`.
        weight: int8 [O, K].
        bias: int32 [O], in units of the accumulator.
        scale: float32 [O], > 0.
        weight_bits: Width that the weight fits; what executes it may hold it in no more.
        weight_zero_point: int8 [O] of asymmetric weights.

    Returns:
        float32 [..., O].
    """
    dtype = exact_dtype(weight.shape[1], weight_zero_point)
    weights = _centred(weight, weight_zero_point, dtype)
    accumulator = F.linear(x.to(dtype) - zero_point.to(dtype), weights)
    return _requantise(accumulator, bias, scale, accumulator.dim() - 1)


@qlinear.register_fake
def _(
    x: Tensor,
    zero_point: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    weight_bits: int = 8,
    weight_zero_point: Tensor | None = None,
) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]), dtype=torch.float32)


@torch.library.custom_op("netcarve::unpack", mutates_args=())
def unpack(packed: Tensor, bits: int, shape: list[int]) -> Tensor:
    """Stored weights of 2 to 7 bits as integers; see `supernet.packing.unpack_codes`.

    Args:
        packed: uint8 [ceil(bits * prod(shape) / 8)].
        bits: Stored width.
        shape: Of the weight.

    Returns:
        int8 of `shape`.
    """
    return unpack_codes(packed, bits, tuple(shape))


@unpack.register_fake
def _(packed: Tensor, bits: int, shape: list[int]) -> Tensor:
    return packed.new_empty(shape, dtype=torch.int8)


@torch.library.custom_op("netcarve::weight_only_linear", mutates_args=())
def weight_only_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    group_size: int,
    weight_bits: int,
    weight_zero_point: Tensor | None = None,
) -> Tensor:
    """Matrix product in float32 with integer weights that have one scale per group of inputs.

    Computes x @ ((weight - weight_zero_point[:, g]) * scale[:, g]).T + bias, g = k // group_size.

    Args:
        x: float32 [..., K].
        weight: int8 [O, K].
        bias: float32 [O].
        scale: float32 [O, ceil(K / group_size)].
        group_size: Inputs that share one scale.
        weight_bits: Width that the weight fits.
        weight_zero_point: int8, the shape of `scale`, of asymmetric weights.

    Returns:
        float32 [..., O].
    """
    codes, inputs = weight.to(torch.float32), weight.shape[1]
    if weight_zero_point is not None:
        codes = codes - spread(weight_zero_point.to(torch.float32), group_size, inputs)
    return F.linear(x, codes * spread(scale, group_size, inputs), bias)


@weight_only_linear.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    group_size: int,
    weight_bits: int,
    weight_zero_point: Tensor | None = None,
) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))
