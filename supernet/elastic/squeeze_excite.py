"""Squeeze-and-excite over prefixes of its channels and of its bottleneck."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.layer_spec import LayerSpec
from supernet.elastic.leading import leading
from supernet.elastic.options import LayerOptions
from supernet.elastic.switched import SwitchedModule


class ElasticSqueezeExcite(SwitchedModule):
    """x * hardsigmoid(expand(relu(reduce(mean(x))))) (Hu et al. 2018; hard as in MobileNetV3).

    Its weights stay float32: two small matrix-vector products on one pixel.

    Args:
        options: The store's channels and bottleneck width.
    """

    def __init__(self, options: LayerOptions) -> None:
        super().__init__()
        self.options = options
        channels, hidden = options.largest.out_channels, options.largest.hidden_channels
        self.reduce_weight = nn.Parameter(torch.empty(hidden, channels))
        self.reduce_bias = nn.Parameter(torch.zeros(hidden))
        self.expand_weight = nn.Parameter(torch.empty(channels, hidden))
        self.expand_bias = nn.Parameter(torch.zeros(channels))
        nn.init.normal_(self.reduce_weight, std=math.sqrt(2 / channels))
        nn.init.normal_(self.expand_weight, std=1 / math.sqrt(hidden))
        self.spec = options.largest

    def activate(self, spec: LayerSpec) -> None:
        """Become `spec`; copies nothing."""
        self.options.check(spec)
        self.spec = spec

    def views(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Active reduce weight [D, C], its bias [D], expand weight [C, D], its bias [C]."""
        channels, hidden = self.spec.out_channels, self.spec.hidden_channels
        return (
            leading(self.reduce_weight, hidden, channels),
            leading(self.reduce_bias, hidden),
            leading(self.expand_weight, channels, hidden),
            leading(self.expand_bias, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, C, H, W] -> the same shape."""
        reduce_weight, reduce_bias, expand_weight, expand_bias = self.views()
        hidden = F.relu(F.linear(x.mean((2, 3)), reduce_weight, reduce_bias))  # [N, D]
        gate = F.hardsigmoid(F.linear(hidden, expand_weight, expand_bias))  # [N, C]
        return x * gate[:, :, None, None]

    @torch.no_grad()
    def permute_channels(self, order: Tensor) -> None:
        """Reorder the channels of the map."""
        self.reduce_weight.copy_(self.reduce_weight[:, order])
        self.expand_weight.copy_(self.expand_weight[order])
        self.expand_bias.copy_(self.expand_bias[order])

    @torch.no_grad()
    def permute_hidden(self, order: Tensor) -> None:
        """Reorder the bottleneck."""
        self.reduce_weight.copy_(self.reduce_weight[order])
        self.reduce_bias.copy_(self.reduce_bias[order])
        self.expand_weight.copy_(self.expand_weight[:, order])
