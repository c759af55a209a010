from __future__ import annotations

import math

import torch

from supernet.attention import attend, position_bias


def test_a_bias_belongs_to_a_distance():
    table = torch.randn(2, 3, 3)
    bias = position_bias(table)
    assert bias.shape == (2, 9, 9)
    for query in range(9):
        for key in range(9):
            dy, dx = abs(query // 3 - key // 3), abs(query % 3 - key % 3)
            assert torch.equal(bias[:, query, key], table[:, dy, dx])


def test_a_smaller_map_takes_the_corner_of_the_table():
    """Its pixels are the first rows and columns of the larger map."""
    table = torch.randn(2, 5, 5)
    inside = torch.tensor([5 * y + x for y in range(3) for x in range(3)])
    expected = position_bias(table)[:, inside][:, :, inside]
    assert torch.equal(position_bias(table[:, :3, :3]), expected)


def test_attention_is_a_softmax_of_scores_and_biases():
    q, k = torch.randn(2, 3, 7, 16), torch.randn(2, 3, 7, 16)
    v, bias = torch.randn(2, 3, 7, 24), torch.randn(3, 7, 7)
    scores = torch.einsum("nhqd,nhkd->nhqk", q, k) / math.sqrt(16) + bias
    expected = torch.einsum("nhqk,nhke->nhqe", scores.softmax(-1), v)
    torch.testing.assert_close(attend(q, k, v, bias), expected)
