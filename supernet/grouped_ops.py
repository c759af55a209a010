"""Integer layers whose weights have one scale per group of inputs, as `torch.library` custom ops.

Every group accumulates exact integers; the scaled groups are added in float64 and rounded once, so
that the result does not depend on their order. Weights in groups on a float32 input are
`integer_ops.weight_only_linear`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from supernet.integer_ops import empty_maps, exact_dtype, spread


@torch.library.custom_op("netcarve::qconv2d_grouped", mutates_args=())
def qconv2d_grouped(
    x: Tensor,
    zero_point: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    group_size: int,
    stride: int,
    padding: int,
    groups: int,
    weight_bits: int,
    weight_zero_point: Tensor | None = None,
) -> Tensor:
    """Integer convolution whose weights have one scale per output channel and group of inputs.

    Computes sum_g conv(x_g - zero_point, weight_g - weight_zero_point[c, g]) * scale[c, g], plus
    bias[c], over the groups g of `group_size` inputs; padding contributes zero.

    Args:
        x: uint8 or int8 [N, I, H, W].
        zero_point: int32 scalar, the zero point of `x`.
        weight: int8 [O, I / groups, k, k].
        bias: float32 [O].
        scale: float32 [O, ceil(I / groups / group_size)].
        group_size: Inputs of one output channel that share one scale.
        stride: Step of the window, in pixels.
        padding: Rows and columns of zeros added at each border.
        groups: Number of channel groups; I for a depthwise convolution.
        weight_bits: Width that the weight fits.
        weight_zero_point: int8, the shape of `scale`, of asymmetric weights.

    Returns:
        float32 [N, O, H', W'].
    """
    dtype = exact_dtype(group_size * weight.shape[2] * weight.shape[3], weight_zero_point)
    centred = x.to(dtype) - zero_point.to(dtype)
    centred = centred.view(x.shape[0], groups, -1, *x.shape[2:])
    total = bias.to(torch.float64).view(-1, 1, 1)
    for number, part in enumerate(_parts(weight, weight_zero_point, group_size, dtype)):
        start = number * group_size
        inputs = centred[:, :, start : start + group_size].flatten(1, 2)
        accumulator = F.conv2d(inputs, part, None, stride, padding, 1, groups)
        factor = scale[:, number].to(torch.float64).view(-1, 1, 1)
        total = total + accumulator.to(torch.float64) * factor
    return total.to(torch.float32)


@qconv2d_grouped.register_fake
def _(
    x: Tensor,
    zero_point: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    group_size: int,
    stride: int,
    padding: int,
    groups: int,
    weight_bits: int,
    weight_zero_point: Tensor | None = None,
) -> Tensor:
    return empty_maps(x, weight, stride, padding)


@torch.library.custom_op("netcarve::qlinear_grouped", mutates_args=())
def qlinear_grouped(
    x: Tensor,
    zero_point: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    group_size: int,
    weight_bits: int,
    weight_zero_point: Tensor | None = None,
) -> Tensor:
    """Integer matrix product whose weights have one scale per output and group of inputs.

    Computes sum_g ((x_g - zero_point) @ (weight_g - weight_zero_point[:, g]).T) * scale[:, g], plus
    the bias, over the groups g of `group_size` inputs.

    Args:
        x: uint8 or int8 [..., K].
        zero_point: int32 scalar, the zero point of `x`.
        weight: int8 [O, K].
        bias: float32 [O].
        scale: float32 [O, ceil(K / group_size)].
        group_size: Inputs that share one scale.
        weight_bits: Width that the weight fits.
        weight_zero_point: int8, the shape of `scale`, of asymmetric weights.

    Returns:
        float32 [..., O].
    """
    dtype = exact_dtype(group_size, weight_zero_point)
    centred = x.to(dtype) - zero_point.to(dtype)
    total = bias.to(torch.float64)
    for number, part in enumerate(_parts(weight, weight_zero_point, group_size, dtype)):
        start = number * group_size
        accumulator = F.linear(centred[..., start : start + group_size], part)
        total = total + accumulator.to(torch.float64) * scale[:, number].to(torch.float64)
    return total.to(torch.float32)


@qlinear_grouped.register_fake
def _(
    x: Tensor,
    zero_point: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    group_size: int,
    weight_bits: int,
    weight_zero_point: Tensor | None = None,
) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]), dtype=torch.float32)


def _parts(
    weight: Tensor, zero_point: Tensor | None, group_size: int, dtype: torch.dtype
) -> list[Tensor]:
    """The centred weights of every group of inputs, [O, group_size or fewer, ...] each."""
    codes = weight.to(dtype)
    if zero_point is not None:
        zeros = spread(zero_point.to(dtype), group_size, weight.shape[1])
        codes = codes - zeros.view(*zeros.shape, *(1,) * (weight.dim() - 2))
    return list(torch.split(codes, group_size, dim=1))
