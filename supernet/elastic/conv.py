"""Convolution whose active channels, kernel and precision are parts of one weight."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.layer_spec import LayerSpec
from supernet.elastic.convolution import convolve
from supernet.elastic.leading import leading
from supernet.elastic.options import LayerOptions
from supernet.elastic.switched import SwitchedModule
from supernet.quantizers import FakeQuantizer, IntegerTensor, PerFormQuantizer


class ElasticConv2d(SwitchedModule):
    """Convolution without bias over a prefix of input and output channels.

    A small kernel is the centre of the next larger one, mapped by a learned matrix that all
    channels share and that starts as the identity (Cai et al. 2020, "Once-for-All"). It is
    computed when used, not stored, and has weight quantisers of its own.

    Args:
        options: The store's size, kernels and weight schemes.
    """

    def __init__(self, options: LayerOptions) -> None:
        super().__init__()
        self.options = options
        big = options.largest
        shape = (big.out_channels, big.in_channels // big.groups, big.kernel, big.kernel)
        self.depthwise = big.groups > 1
        self.weight = nn.Parameter(torch.empty(shape))
        # He initialisation by fan-out, as in MobileNetV3.
        fan_out = big.kernel**2 * big.out_channels / big.groups
        nn.init.normal_(self.weight, std=math.sqrt(2 / fan_out))
        self.kernel_transforms = nn.ParameterDict(
            {f"k{k}": nn.Parameter(torch.eye(k * k)) for k in options.kernels[:-1]}
        )
        self.weight_quantizers = nn.ModuleDict(
            {
                f"k{k}": PerFormQuantizer(options.weight_schemes, (*shape[:2], k, k))
                for k in options.kernels
                if options.weight_schemes
            }
        )
        self.spec = big

    def activate(self, spec: LayerSpec) -> None:
        """Become `spec`; copies nothing."""
        self.options.check(spec)
        self.spec = spec

    def weight_view(self) -> Tensor:
        """The active channels of the largest kernel [O, I / groups, K, K], a view of the store."""
        inputs = 1 if self.depthwise else self.spec.in_channels
        return leading(self.weight, self.spec.out_channels, inputs)

    def float_weight(self) -> Tensor:
        """The active float32 weight [O, I / groups, k, k]; a view when k is the largest kernel."""
        return self._at_kernel(self.weight_view(), self.spec.kernel)

    def active_weight(self) -> Tensor:
        """`float_weight`, fake-quantised when the active precision says so."""
        weight = self.float_weight()
        scheme = self.spec.precision.weight
        if scheme is None:
            return weight
        # Under autocast a transformed kernel is bfloat16.
        out: Tensor = self.weight_quantizers[f"k{self.spec.kernel}"](weight.float(), scheme)
        return out

    def export_int(self) -> IntegerTensor:
        """The integers of the active weight and their scales.

        Raises:
            ValueError: The active precision is float32.
        """
        scheme = self.spec.precision.weight
        if scheme is None:
            raise ValueError(f"{self.spec.site} is float32 and has no integers")
        quantizer = self.weight_quantizers[f"k{self.spec.kernel}"]
        assert isinstance(quantizer, FakeQuantizer)
        return quantizer.export_int(self.float_weight().detach(), scheme)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, I, H, W] -> [N, O, H', W']."""
        spec = self.spec
        groups = spec.in_channels if self.depthwise else 1
        return convolve(x, self.active_weight(), spec.stride, groups)

    @torch.no_grad()
    def calibrate_weights(self) -> None:
        """Set the scales of every kernel and scheme from the whole weight."""
        for kernel in self.options.kernels:
            weight = self._at_kernel(self.weight, kernel)
            for scheme in self.options.weight_schemes:
                quantizer = self.weight_quantizers[f"k{kernel}"]
                assert isinstance(quantizer, FakeQuantizer)
                quantizer.calibrate(weight, scheme)

    @torch.no_grad()
    def permute_outputs(self, order: Tensor) -> None:
        """Reorder output channels; quantisers must be calibrated afterwards."""
        self.weight.copy_(self.weight[order])

    @torch.no_grad()
    def permute_inputs(self, order: Tensor) -> None:
        """Reorder input channels; quantisers must be calibrated afterwards."""
        self.weight.copy_(self.weight[:, order])

    def _at_kernel(self, weight: Tensor, kernel: int) -> Tensor:
        for smaller in reversed(self.options.kernels[:-1]):
            if weight.shape[-1] == kernel:
                break
            border = (weight.shape[-1] - smaller) // 2
            crop = weight[..., border : border + smaller, border : border + smaller]
            flat = crop.reshape(*crop.shape[:2], smaller * smaller)  # [O, I / groups, k * k]
            weight = F.linear(flat, self.kernel_transforms[f"k{smaller}"]).view_as(crop)
        return weight
