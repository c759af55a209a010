"""Every way of a convolution gives what PyTorch's own gives, with its gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from supernet.elastic.convolution import convolve

SHAPES = [
    # channels in and out, groups, height, width, kernel, stride
    (6, 10, 1, 1, 1, 1, 1),
    (6, 10, 1, 5, 4, 1, 1),
    (6, 10, 1, 5, 4, 1, 2),
    (6, 10, 1, 7, 7, 3, 2),
    *[
        (12, 12, 12, h, w, k, s)
        for h, w in ((1, 1), (2, 2), (1, 3))
        for k in (3, 5, 7)
        for s in (1, 2)
    ],
    *[(8, 8, 8, h, w, k, s) for h, w in ((4, 4), (8, 7)) for k in (3, 5, 7) for s in (1, 2)],
    (8, 8, 8, 9, 9, 5, 1),
    (8, 8, 8, 9, 9, 5, 2),
]  # fmt: skip


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_the_library(
    shape: tuple[int, ...], channels_last: bool
) -> None:
    inputs, outputs, groups, height, width, kernel, stride = shape
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(3, inputs, height, width, generator=generator)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(outputs, inputs // groups, kernel, kernel, generator=generator)
    found: list[tuple[torch.Tensor, ...]] = []
    for function in (
        lambda a, b: convolve(a, b, stride, groups),
        lambda a, b: F.conv2d(a, b, None, stride, kernel // 2, groups=groups),
    ):
        leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        out = function(*leaves)
        slope = torch.randn(out.shape, generator=torch.Generator().manual_seed(4))
        found.append((out, *torch.autograd.grad(out, leaves, slope)))
    for ours, library in zip(*found, strict=True):
        torch.testing.assert_close(ours, library, rtol=1e-4, atol=1e-4)


def test_a_map_that_needs_no_gradient_gets_none() -> None:
    x = torch.randn(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(8, 1, 5, 5, requires_grad=True)
    convolve(x, weight, 1, 8).sum().backward()
    assert x.grad is None
    assert weight.grad is not None
