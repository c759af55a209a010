"""Batch normalisation over a prefix of the channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ElasticBatchNorm2d(nn.Module):
    """BatchNorm whose active channels are a prefix of `channels`.

    Statistics of one subnet are wrong for another (Yu et al. 2019, "Slimmable Neural Networks"),
    so training uses batch statistics only and keeps none; `supernet.recalibration` estimates them
    for the active subnet.

    Args:
        channels: Channels of the store.
        eps: Added to the variance.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.eps = eps
        self.active = channels
        self.averaged: int | None = None

    def activate(self, channels: int) -> None:
        """Use the first `channels` channels."""
        self.active = channels

    def start_recalibration(self) -> None:
        """From now on, training-mode batches enter a cumulative average of the statistics."""
        self.averaged = 0

    def stop_recalibration(self) -> None:
        """Leave the statistics as they are."""
        self.averaged = None

    def forward(self, x: Tensor) -> Tensor:
        """[N, active, H, W] -> the same shape."""
        weight, bias = self._view(self.weight).flatten(), self._view(self.bias).flatten()
        stores = (self._view(self.running_mean), self._view(self.running_var))
        mean, var = (store.flatten() for store in stores)
        if not self.training:
            return F.batch_norm(x, mean, var, weight, bias, False, 0.0, self.eps)
        if self.averaged is None:
            return F.batch_norm(x, None, None, weight, bias, True, 0.0, self.eps)
        self.averaged += 1
        out = F.batch_norm(x, mean, var, weight, bias, True, 1 / self.averaged, self.eps)
        for store, updated in zip(stores, (mean, var), strict=True):
            if store.data_ptr() != updated.data_ptr():
                # A view of several axes, which had to be copied to be flat.
                store.copy_(updated.view_as(store))
        return out

    def _view(self, values: Tensor) -> Tensor:
        """The active part of [channels], of any shape, in the order of the input's channels."""
        return values[: self.active]

    @torch.no_grad()
    def affine(self) -> tuple[Tensor, Tensor]:
        """(multiplier, offset), float32 [active] each: the normalisation is x * m + o."""
        n = self.active
        multiplier = self.weight[:n] * torch.rsqrt(self.running_var[:n] + self.eps)
        return multiplier, self.bias[:n] - self.running_mean[:n] * multiplier

    @torch.no_grad()
    def permute(self, order: Tensor) -> None:
        """Reorder all channels: channel `order[j]` moves to place j."""
        for tensor in (self.weight, self.bias, self.running_mean, self.running_var):
            tensor.copy_(tensor[order])
