"""BatchNorm folding: the tensors that an extracted layer stores."""

from __future__ import annotations

import torch
from torch import Tensor

from supernet.fake_quantizer import IntegerTensor

# A channel's accumulator stays below 2**24 in practice, so accumulator + bias fits in int32.
_LARGEST_BIAS = 2.0**30
_SMALLEST_SCALE = 1e-30


def fold_float(weight: Tensor, multiplier: Tensor, offset: Tensor) -> dict[str, Tensor]:
    """`weight` [O, ...] with the normalisation x * multiplier + offset folded in.

    Returns:
        `weight` float32 [O, ...] and `bias` float32 [O].
    """
    folded = weight * multiplier.view(-1, *(1,) * (weight.dim() - 1))
    return {"weight": folded.contiguous().clone(), "bias": offset.clone()}


def fold_integer(
    weight: IntegerTensor, input_scale: Tensor, multiplier: Tensor, offset: Tensor
) -> dict[str, Tensor]:
    """Integers of a weight with the input's scale and a normalisation in the epilogue.

    The rounded weights are those that were trained: the normalisation enters the scale. Where
    its multiplier is negative the integers change sign, so that every scale is positive. Where it
    is so small that the bias would leave int32, the scale is raised and the integers are rounded
    to it; the channel is then a constant for all practical purposes.

    Args:
        weight: Symmetric integers [O, ...] with one scale per channel or one for all.
        input_scale: float32 scalar of the layer's input.
        multiplier: float32 [O].
        offset: float32 [O].

    Returns:
        `weight` int8 [O, ...], `bias` int32 [O] in units of `scale`, `scale` float32 [O].

    Raises:
        ValueError: The weight has a zero point, or scales that vary within a channel.
    """
    channels = len(multiplier)
    if weight.scale.numel() not in (1, channels) or bool(weight.zero_point.any()):
        raise ValueError("an integer kernel takes symmetric weights with one scale per channel")
    exact = weight.scale.reshape(-1) * input_scale * multiplier  # [O]
    floor = (offset.abs() / _LARGEST_BIAS).clamp(min=_SMALLEST_SCALE)
    scale = torch.maximum(exact.abs(), floor)
    ratio = torch.where(exact.abs() < floor, exact / scale, torch.sign(exact))
    codes = weight.codes.to(torch.float32) * ratio.view(-1, *(1,) * (weight.codes.dim() - 1))
    return {
        "weight": torch.round(codes).to(torch.int8).contiguous(),
        "bias": torch.round(offset.double() / scale.double()).to(torch.int32),
        "scale": scale.clone(),
    }


def fold_weight_only(
    weight: IntegerTensor, group_size: int, multiplier: Tensor, offset: Tensor
) -> dict[str, Tensor]:
    """Integers of a linear layer's weight with a normalisation in the scales.

    Args:
        weight: Symmetric integers [O, I] with scales that repeat within groups of inputs.
        group_size: Inputs that share one scale.
        multiplier: float32 [O].
        offset: float32 [O].

    Returns:
        `weight` int8 [O, I], `bias` float32 [O], `scale` float32 [O, groups].

    Raises:
        ValueError: The weight has a zero point.
    """
    if bool(weight.zero_point.any()):
        raise ValueError("a weight-only kernel takes symmetric weights")
    scale = weight.scale[:, ::group_size] * multiplier[:, None]
    return {"weight": weight.codes, "bias": offset.clone(), "scale": scale}
