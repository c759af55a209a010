"""Linear layer over a prefix of features."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.layer_spec import LayerSpec
from supernet.elastic.leading import leading
from supernet.elastic.options import LayerOptions
from supernet.elastic.switched import SwitchedModule
from supernet.quantizers import FakeQuantizer, IntegerTensor, PerFormQuantizer


class ElasticLinear(SwitchedModule):
    """Linear layer with bias whose active features are prefixes of the store.

    Args:
        options: The store's size and weight schemes.
    """

    def __init__(self, options: LayerOptions) -> None:
        super().__init__()
        self.options = options
        big = options.largest
        self.weight = nn.Parameter(torch.empty(big.out_channels, big.in_channels))
        nn.init.normal_(self.weight, std=1 / math.sqrt(big.in_channels))
        self.bias = nn.Parameter(torch.zeros(big.out_channels))
        self.weight_quantizer: FakeQuantizer = PerFormQuantizer(
            options.weight_schemes, tuple(self.weight.shape)
        )
        self.spec = big

    def activate(self, spec: LayerSpec) -> None:
        """Become `spec`; copies nothing."""
        self.options.check(spec)
        self.spec = spec

    def weight_view(self) -> Tensor:
        """The active float32 weight [O, I], a view of the store."""
        return leading(self.weight, self.spec.out_channels, self.spec.in_channels)

    def bias_view(self) -> Tensor:
        """The active bias [O], a view of the store."""
        return leading(self.bias, self.spec.out_channels)

    def active_weight(self) -> Tensor:
        """`weight_view`, fake-quantised when the active precision says so."""
        scheme = self.spec.precision.weight
        weight = self.weight_view()
        if scheme is None:
            return weight
        out: Tensor = self.weight_quantizer(weight, scheme)
        return out

    def export_int(self) -> IntegerTensor:
        """The integers of the active weight and their scales.

        Raises:
            ValueError: The active precision is float32.
        """
        scheme = self.spec.precision.weight
        if scheme is None:
            raise ValueError(f"{self.spec.site} is float32 and has no integers")
        return self.weight_quantizer.export_int(self.weight_view().detach(), scheme)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, I] -> [N, O]."""
        return F.linear(x, self.active_weight(), self.bias_view())

    def calibrate_weights(self) -> None:
        """Set the scales of every scheme from the whole weight."""
        for scheme in self.options.weight_schemes:
            self.weight_quantizer.calibrate(self.weight, scheme)

    @torch.no_grad()
    def permute_inputs(self, order: Tensor) -> None:
        """Reorder input features; quantisers must be calibrated afterwards."""
        self.weight.copy_(self.weight[:, order])
