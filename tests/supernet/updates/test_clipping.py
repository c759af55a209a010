from __future__ import annotations

import pytest
import torch
from torch import nn

from supernet.updates import clip_gradients


def parameter(gradient, weight=None):
    gradient = torch.tensor(gradient)
    found = nn.Parameter(torch.ones_like(gradient) if weight is None else torch.tensor(weight))
    found.grad = gradient
    return found


def test_by_value():
    one = parameter([3.0, -0.5, -7.0])
    clip_gradients([one, nn.Parameter(torch.ones(2))], "value", 1.0)
    assert one.grad.tolist() == [1.0, -0.5, -1.0]


def test_by_the_norm_of_all_together():
    one, two = parameter([3.0, 0.0]), parameter([[4.0]])
    clip_gradients([one, two], "norm", 1.0)
    total = torch.cat([one.grad.flatten(), two.grad.flatten()])
    torch.testing.assert_close(total, torch.tensor([0.6, 0.0, 0.8]))


def test_adaptive_by_the_output_channel_relative_to_its_weights():
    one = parameter([[3.0, 4.0], [0.03, 0.04], [0.0, 0.0]], [[0.6, 0.8], [0.6, 0.8], [0.0, 0.0]])
    bias = parameter([30.0, 40.0], [3.0, 4.0])
    clip_gradients([one, bias], "adaptive", 0.1)
    expected = torch.tensor([[0.06, 0.08], [0.03, 0.04], [0.0, 0.0]])
    torch.testing.assert_close(one.grad, expected)
    torch.testing.assert_close(bias.grad, torch.tensor([0.3, 0.4]))


def test_weights_of_zero_may_still_move():
    one = parameter([[3.0, 4.0]], [[0.0, 0.0]])
    clip_gradients([one], "adaptive", 0.1)
    assert one.grad.norm().item() == pytest.approx(1e-4)


def test_none_leaves_gradients_alone():
    one = parameter([3.0, -7.0])
    clip_gradients([one], "none", 1.0)
    assert one.grad.tolist() == [3.0, -7.0]
