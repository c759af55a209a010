"""Layer normalisation over a prefix of the channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.layer_spec import LAYER_NORM_EPSILON
from supernet.elastic.layer import ElasticLayer
from supernet.elastic.leading import leading
from supernet.elastic.options import LayerOptions


class ElasticLayerNorm(ElasticLayer):
    """LayerNorm (Ba et al. 2016) of each pixel, in float32.

    Mean and variance are those of the active channels alone, in training as in evaluation, so that
    no subnet needs statistics of its own.

    Args:
        options: The store's channels.
    """

    def __init__(self, options: LayerOptions) -> None:
        super().__init__(options)
        channels = options.largest.out_channels
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def compute(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same shape, in the dtype of the weight."""
        channels = self.spec.out_channels
        pixels = x.permute(0, 2, 3, 1).to(self.weight.dtype)
        weight, bias = leading(self.weight, channels), leading(self.bias, channels)
        out = F.layer_norm(pixels, (channels,), weight, bias, LAYER_NORM_EPSILON)
        return out.permute(0, 3, 1, 2)

    def calibrate_weights(self) -> None:
        """Nothing to do: the weights are float32."""

    def export_weights(self) -> dict[str, Tensor]:
        channels = self.spec.out_channels
        views = {"weight": self.weight[:channels], "bias": self.bias[:channels]}
        return {name: view.detach().clone() for name, view in views.items()}

    @torch.no_grad()
    def permute_channels(self, order: Tensor) -> None:
        """Reorder the channels of the map."""
        self.weight.copy_(self.weight[order])
        self.bias.copy_(self.bias[order])
