"""BatchNorm folding: the tensors that an extracted layer stores."""

from __future__ import annotations

import torch
from torch import Tensor

from spaces.quant_scheme import QuantScheme, Symmetry
from supernet.quantizers import IntegerTensor

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


def fold_quantised(
    weight: IntegerTensor,
    scheme: QuantScheme,
    input_scale: Tensor,
    multiplier: Tensor,
    offset: Tensor,
) -> dict[str, Tensor]:
    """The tensors of `spaces.cost.tensor_layout` of a layer with integer weights, not packed yet.

    Args:
        weight: Integers [O, I, ...] under `scheme`.
        scheme: Of the weight.
        input_scale: float32 scalar of the layer's input; 1 for a float32 input.
        multiplier: float32 [O], of the normalisation x * multiplier + offset that follows.
        offset: float32 [O].
    """
    if scheme.group_size is not None:
        return _fold_grouped(weight, scheme, input_scale, multiplier, offset)
    if scheme.symmetry is Symmetry.ASYMMETRIC:
        return _fold_asymmetric(weight, input_scale, multiplier, offset)
    return fold_integer(weight, input_scale, multiplier, offset)


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
    exact, scale = _scales(weight, input_scale, multiplier, offset)
    ratio = torch.where(exact.abs() < scale, exact / scale, torch.sign(exact))
    codes = weight.codes.to(torch.float32) * _rows(ratio, weight.codes)
    return {
        "weight": torch.round(codes).to(torch.int8).contiguous(),
        "bias": _bias(offset, scale),
        "scale": scale.clone(),
    }


def _fold_asymmetric(
    weight: IntegerTensor, input_scale: Tensor, multiplier: Tensor, offset: Tensor
) -> dict[str, Tensor]:
    """As `fold_integer`, with a zero point per channel."""
    exact, scale = _scales(weight, input_scale, multiplier, offset)
    zero = weight.zero_point.reshape(-1).expand(len(multiplier)).to(torch.float32)
    codes = weight.codes.to(torch.float32)
    # -(q - z) is (-1 - q) - (-1 - z), and -1 - q is in the range of asymmetric integers if q is.
    negative = exact < 0
    zero = torch.where(negative, -1 - zero, zero)
    codes = torch.where(_rows(negative, codes), -1 - codes, codes)
    ratio, centre = _rows(exact.abs() / scale, codes), _rows(zero, codes)
    return {
        "weight": torch.round((codes - centre) * ratio + centre).to(torch.int8).contiguous(),
        "weight_zero_point": zero.to(torch.int8),
        "bias": _bias(offset, scale),
        "scale": scale.clone(),
    }


def _fold_grouped(
    weight: IntegerTensor,
    scheme: QuantScheme,
    input_scale: Tensor,
    multiplier: Tensor,
    offset: Tensor,
) -> dict[str, Tensor]:
    """`scale` float32 [O, groups of inputs] of any sign, and a float32 bias: groups have no unit in
    common."""
    tensors = {
        "weight": weight.codes.contiguous(),
        "bias": offset.clone(),
        "scale": _per_group(weight.scale, weight, scheme) * input_scale * multiplier[:, None],
    }
    if scheme.symmetry is Symmetry.ASYMMETRIC:
        tensors["weight_zero_point"] = _per_group(weight.zero_point, weight, scheme).to(torch.int8)
    return tensors


def _scales(
    weight: IntegerTensor, input_scale: Tensor, multiplier: Tensor, offset: Tensor
) -> tuple[Tensor, Tensor]:
    """[O] each: the exact factor of every channel's accumulator, and the positive one to store,
    which is larger only where the bias would leave int32."""
    exact = weight.scale.reshape(-1) * input_scale * multiplier
    floor = (offset.abs() / _LARGEST_BIAS).clamp(min=_SMALLEST_SCALE)
    return exact, torch.maximum(exact.abs(), floor)


def _bias(offset: Tensor, scale: Tensor) -> Tensor:
    return torch.round(offset.double() / scale.double()).to(torch.int32)


def _rows(values: Tensor, codes: Tensor) -> Tensor:
    """[O] -> broadcastable to codes [O, ...]."""
    return values.view(-1, *(1,) * (codes.dim() - 1))


def _per_group(values: Tensor, weight: IntegerTensor, scheme: QuantScheme) -> Tensor:
    """[O, groups] of values that broadcast against the integers [O, I, ...] and repeat within
    groups of inputs."""
    outputs, inputs, *window = weight.codes.shape
    spread = values.expand(outputs, inputs, *(1 for _ in window))
    return spread[:, :: scheme.group_size or 1].reshape(outputs, -1)
