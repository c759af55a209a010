"""Convolutions of training, by the fastest of several equal ways on a CPU.

oneDNN, behind PyTorch's convolution, is slow where supernets for small images spend their time:
1x1 convolutions of small maps, and the weight gradient of depthwise convolutions whose window is
large for their map. Each has an equal form that other kernels compute faster. On other devices, and
on maps that are not channels-last, PyTorch's own convolution is used.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Largest maps, in pixels, on which the weight gradient is computed as a convolution of images, by
# kernel size: beyond them oneDNN's own is faster.
_SMALL_MAPS = {5: 256, 7: 256}
# Up to so many pixels, or pairs of an input's and an output's pixels where the kernel is one of
# these, all pairs are multiplied.
_TINY_MAP = 4
_FEW_PAIRS = 64


def convolve(x: Tensor, weight: Tensor, stride: int, groups: int) -> Tensor:
    """Convolution without bias, padded with `k // 2` zeros at each border.

    Args:
        x: float32 [N, I, H, W].
        weight: float32 [O, I / groups, k, k], k odd.
        stride: Step of the window, in pixels.
        groups: 1, or I = O for a depthwise convolution.

    Returns:
        float32 [N, O, ceil(H / stride), ceil(W / stride)].
    """
    kernel = weight.shape[-1]
    fast = x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last)
    if fast and groups > 1 and not torch.is_autocast_enabled("cpu"):
        return _depthwise(x, weight, stride)
    if fast and kernel == 1 and stride == 1:
        # A matrix product over pixels, which lie one behind the other.
        if x.shape[2] == x.shape[3] == 1:
            # By `permute` the last two axes would have other strides than BatchNorm's results, and
            # operators on both would not see that the two lie alike.
            return F.linear(x.flatten(1), weight.flatten(1))[:, :, None, None]
        return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1)).permute(0, 3, 1, 2)
    return F.conv2d(x, weight, None, stride, kernel // 2, groups=groups)


def _depthwise(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    size = max(x.shape[2:])
    # Taps further from the centre than the map is wide meet nothing but zeros.
    unseen = max(0, weight.shape[-1] // 2 - (size - 1))
    if unseen:
        weight = weight[..., unseen:-unseen, unseen:-unseen]
    if weight.shape[-1] == 1 and (stride == 1 or size == 1):
        return x * weight.view(1, -1, 1, 1)
    out: Tensor = _Depthwise.apply(x, weight, stride)  # type: ignore[no-untyped-call]
    return out


class _Depthwise(torch.autograd.Function):
    """Depthwise convolution of a channels-last map, with faster gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (grad,) = grads
        grad = grad.contiguous(memory_format=torch.channels_last)
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        kernel = weight.shape[-1]
        grad_x = grad_weight = None
        if needs_x and ctx.stride == 1:
            # The transposed convolution of a convolution of stride 1 is one itself.
            mirrored = weight.flip(2, 3)
            grad_x = F.conv2d(grad, mirrored, None, 1, kernel // 2, groups=x.shape[1])
            needs_x = False
        pixels = x.shape[2] * x.shape[3]
        if needs_weight and pixels <= max(_TINY_MAP, _SMALL_MAPS.get(kernel, 0)):
            by_pairs = pixels <= _TINY_MAP or pixels * grad.shape[2] * grad.shape[3] <= _FEW_PAIRS
            by = _gradient_of_pairs if by_pairs else _gradient_of_windows
            grad_weight = by(x, grad, kernel, ctx.stride)
            needs_weight = False
        if needs_x or needs_weight:
            found = torch.ops.aten.convolution_backward.default(
                grad,
                x,
                weight,
                None,
                [ctx.stride] * 2,
                [kernel // 2] * 2,
                [1, 1],
                False,
                [0, 0],
                x.shape[1],
                [needs_x, needs_weight, False],
            )
            grad_x = found[0] if needs_x else grad_x
            grad_weight = found[1] if needs_weight else grad_weight
        return grad_x, grad_weight, None


def _gradient_of_pairs(x: Tensor, grad: Tensor, kernel: int, stride: int) -> Tensor:
    """Gradient [C, 1, k, k] of a depthwise weight: products of all pairs of pixels, each added to
    the tap that leads from the one to the other."""
    n, c = x.shape[:2]
    inputs = x.permute(0, 2, 3, 1).reshape(n, -1, 1, c)
    outputs = grad.permute(0, 2, 3, 1).reshape(n, 1, -1, c)
    found = (inputs * outputs).sum(0)  # [H * W, H' * W', C]
    taps = _taps_of_pairs(tuple(x.shape[2:]), tuple(grad.shape[2:]), kernel, stride)
    return (taps.to(found.dtype) @ found.flatten(0, 1)).t().reshape(c, 1, kernel, kernel)


@lru_cache(maxsize=64)
def _taps_of_pairs(size: tuple[int, ...], out: tuple[int, ...], kernel: int, stride: int) -> Tensor:
    """Which tap leads from an input's pixel to an output's: float32 [k * k, H * W * H' * W'], 1
    where it does."""
    row, column = (
        torch.arange(n)[:, None] - stride * torch.arange(m)[None] + kernel // 2
        for n, m in zip(size, out, strict=True)
    )  # [H, H'], [W, W']
    row, column = row[:, None, :, None], column[None, :, None, :]
    tap = torch.where((column >= 0) & (column < kernel), row * kernel + column, -1)
    return (tap.flatten() == torch.arange(kernel * kernel)[:, None]).float()


def _gradient_of_windows(x: Tensor, grad: Tensor, kernel: int, stride: int) -> Tensor:
    """Gradient [C, 1, k, k] of a depthwise weight.

    Each channel of each image is correlated with its own gradient: a depthwise convolution again,
    of one image with N * C channels, whose windows are the gradient maps.
    """
    n, c, height, width = x.shape
    image = x.permute(2, 3, 0, 1).reshape(1, height, width, n * c).permute(0, 3, 1, 2)
    window = grad.permute(2, 3, 0, 1).reshape(*grad.shape[2:], n * c)
    window = window.permute(2, 0, 1).unsqueeze(1)  # [N * C, 1, H', W']
    # A window that moves by `stride` meets every `stride`-th pixel.
    taps = F.conv2d(image, window, None, 1, kernel // 2, dilation=stride, groups=n * c)
    return taps[0, :, :kernel, :kernel].view(n, c, kernel, kernel).sum(0).unsqueeze(1)
