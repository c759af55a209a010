from __future__ import annotations

import torch

from supernet.elastic import ElasticBias, ElasticHeadBias


def test_a_bias_is_added_to_the_active_channels():
    bias = ElasticBias(6)
    torch.nn.init.normal_(bias.bias)
    bias.activate(4)
    x = torch.randn(2, 4, 3, 3)
    expected = x + bias.bias[:4, None, None]
    assert torch.equal(bias(x), expected)
    multiplier, offset = bias.affine()
    torch.testing.assert_close(x * multiplier[:, None, None] + offset[:, None, None], expected)
    bias(x).sum().backward()
    assert bias.bias.grad.tolist() == [18] * 4 + [0] * 2


def test_a_bias_of_heads_is_that_of_the_first_channels_of_the_first_heads():
    bias = ElasticHeadBias(3 * 6, 3)
    torch.nn.init.normal_(bias.bias)
    bias.activate_heads(2, 4)
    x = torch.randn(2, 8, 3, 3)
    chosen = [6 * head + channel for head in range(2) for channel in range(4)]
    assert torch.equal(bias(x), x + bias.bias[chosen, None, None])
    _, offset = bias.affine()
    assert torch.equal(offset, bias.bias[:12]), "whole heads"


def test_half_precision_stays_what_it_is():
    bias = ElasticBias(4)
    torch.nn.init.normal_(bias.bias)
    x = torch.randn(2, 4, 3, 3).bfloat16()
    assert bias(x).dtype is torch.bfloat16


def test_reordered_channels_keep_their_biases():
    bias = ElasticBias(5)
    torch.nn.init.normal_(bias.bias)
    x, order = torch.randn(2, 5, 3, 3), torch.tensor([4, 2, 0, 1, 3])
    expected = bias(x)[:, order]
    bias.permute(order)
    assert torch.equal(bias(x[:, order]), expected)
