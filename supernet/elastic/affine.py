"""What follows a convolution: a factor and an offset per channel, over a prefix of the channels."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from supernet.elastic.leading import leading
from supernet.elastic.switched import SwitchedModule


class ElasticAffine(SwitchedModule):
    """Base of what an extracted convolution takes into its weights and its bias.

    Every parameter and buffer is [channels].

    Args:
        channels: Channels of the store.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.active = channels

    def activate(self, channels: int) -> None:
        """Use the first `channels` channels."""
        self.active = channels

    @abstractmethod
    def affine(self) -> tuple[Tensor, Tensor]:
        """(multiplier, offset), float32 [active] each: in evaluation mode x becomes x * m + o."""

    @torch.no_grad()
    def permute(self, order: Tensor) -> None:
        """Reorder all channels: channel `order[j]` moves to place j."""
        for tensor in (*self.parameters(), *self.buffers()):
            tensor.copy_(tensor[order])

    def _view(self, values: Tensor) -> Tensor:
        """The active part of [channels], of any shape, in the order of the input's channels."""
        return leading(values, self.active)


class ElasticBias(ElasticAffine):
    """An offset alone, for convolutions without normalisation.

    Args:
        channels: Channels of the store.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[N, active, H, W] -> the same shape and dtype."""
        # Under autocast `x` may be bfloat16, which a float32 bias would promote.
        return x + self._view(self.bias).flatten().to(x.dtype)[:, None, None]

    @torch.no_grad()
    def affine(self) -> tuple[Tensor, Tensor]:
        """See `ElasticAffine`: the multiplier is 1."""
        bias = self.bias[: self.active]
        return torch.ones_like(bias), bias.clone()
