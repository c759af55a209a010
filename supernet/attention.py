"""Attention with learned position biases, as supernets and extracted subnets compute it alike."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def position_bias(table: Tensor) -> Tensor:
    """The bias of every pair of pixels, by their distance (LeViT, Graham et al. 2021).

    Args:
        table: float32 [heads, R, R]: the bias at distance |dy|, |dx|.

    Returns:
        float32 [heads, R * R, R * R], pixels counted row by row.
    """
    heads, size, _ = table.shape
    place = torch.arange(size, device=table.device)
    distance = (place[:, None] - place[None, :]).abs().flatten()  # [R * R]
    # [heads, (y of the query, y of the key), (x of the query, x of the key)]
    bias = table.index_select(1, distance).index_select(2, distance)
    bias = bias.reshape(heads, size, size, size, size).transpose(2, 3)
    return bias.reshape(heads, size**2, size**2)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(q @ k.T / sqrt(d) + bias) @ v of every head (Vaswani et al. 2017).

    Args:
        q: float32 [N, heads, T, d]; likewise k.
        k: See q.
        v: float32 [N, heads, T, e].
        bias: float32 [heads, T, T].

    Returns:
        float32 [N, heads, T, e].
    """
    return F.scaled_dot_product_attention(q, k, v, bias[None])
