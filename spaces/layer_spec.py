"""LayerSpec: what one layer of a subnet is. Everything that needs geometry reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from spaces.quant_scheme import FP32, LayerPrecision


class Operator(StrEnum):
    """What a layer computes."""

    CONV = "conv"
    DEPTHWISE_CONV = "depthwise_conv"
    SQUEEZE_EXCITE = "squeeze_excite"
    MAX_POOL = "max_pool"
    GLOBAL_POOL = "global_pool"
    LINEAR = "linear"
    ATTENTION = "attention"
    """Multi-head self-attention over the pixels of a map, behind the convolution that writes
    queries, keys and values: their channels side by side in this order, and in each the heads side
    by side. The values pass a depthwise convolution first; scores have a learned bias for every
    head and distance |dy|, |dx| (as in LeViT, Graham et al. 2021)."""
    LAYER_NORM = "layer_norm"
    """Normalisation over the channels of each pixel (Ba et al. 2016), with `LAYER_NORM_EPSILON`
    added to the variance."""


LAYER_NORM_EPSILON = 1e-6


POOLING = frozenset({Operator.MAX_POOL, Operator.GLOBAL_POOL})
"""Operators without weights."""

_NO_MATRIX = frozenset({Operator.SQUEEZE_EXCITE, Operator.ATTENTION, Operator.LAYER_NORM, *POOLING})


class Activation(StrEnum):
    """The non-linearity that follows a layer."""

    NONE = "none"
    RELU = "relu"
    HARDSWISH = "hardswish"
    GELU = "gelu"
    """By the exact error function."""
    SILU = "silu"


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One layer of a subnet, with batch normalisation folded in.

    Attributes:
        site: Place in the network, unique within a subnet: `stage1.block0.expand`.
        operator: What it computes.
        in_channels: Channels (features) that it reads.
        out_channels: Channels (features) that it writes.
        in_size: Height and width of its square input, in pixels; 1 for a linear layer.
        out_size: Height and width of its output, in pixels.
        kernel: Height and width of the window, in pixels; the padding is `kernel // 2`.
        stride: Step of the window, in pixels.
        groups: Number of channel groups.
        activation: Applied to the output, before a residual is added.
        precision: Schemes of the weight and of the layer's *input*.
        residual: Whether the shortcut of the layer's block is added to the output: the block's
            input, or what its `shortcut` layer made of it.
        hidden_channels: Width of a squeeze-and-excite bottleneck, else 0.
        heads: Attention heads that share the output channels of the layer that writes queries,
            keys and values, the channels of attention, and the input channels of the layer behind
            it; else 0.
        shortcut: Whether the layer is the projection of its block's shortcut: the block's first
            layer, behind which the next one reads the block's input too. Where both quantise it
            under one scheme they do so with the same scale and zero point.
        residual_activation: Applied after the residual is added.
    """

    site: str
    operator: Operator
    in_channels: int
    out_channels: int
    in_size: int = 1
    out_size: int = 1
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    activation: Activation = Activation.NONE
    precision: LayerPrecision = FP32
    residual: bool = False
    hidden_channels: int = 0
    heads: int = 0
    shortcut: bool = False
    residual_activation: Activation = Activation.NONE

    @property
    def block(self) -> str:
        """The block that the layer belongs to; empty for layers outside blocks."""
        return self.site.rpartition(".")[0]

    @property
    def padding(self) -> int:
        """Zeros added at each border, in pixels."""
        return self.kernel // 2

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """[O, I / groups, k, k], or [O, I] of a linear layer; (0,) where no single weight mixes
        channels or pixels."""
        if self.operator in _NO_MATRIX:
            return (0,)
        shape = (self.out_channels, self.in_channels // self.groups)
        return shape if self.operator is Operator.LINEAR else (*shape, self.kernel, self.kernel)

    @property
    def head_channels(self) -> tuple[int, int]:
        """Channels of one head of attention: (of a query or key, of a value)."""
        value = self.out_channels // self.heads
        return (self.in_channels // self.heads - value) // 2, value

    @property
    def value_convolution(self) -> LayerSpec:
        """The depthwise convolution of attention's values, as a layer."""
        channels = self.out_channels
        return LayerSpec(
            f"{self.site}.depthwise",
            Operator.DEPTHWISE_CONV,
            channels,
            channels,
            self.in_size,
            self.out_size,
            self.kernel,
            groups=channels,
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` turns back into an equal spec."""
        return {
            "site": self.site,
            "operator": str(self.operator),
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "in_size": self.in_size,
            "out_size": self.out_size,
            "kernel": self.kernel,
            "stride": self.stride,
            "groups": self.groups,
            "activation": str(self.activation),
            "precision": self.precision.to_json(),
            "residual": self.residual,
            "hidden_channels": self.hidden_channels,
            "heads": self.heads,
            "shortcut": self.shortcut,
            "residual_activation": str(self.residual_activation),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LayerSpec:
        """The spec that `to_json` described."""
        fields = dict(data)
        fields["operator"] = Operator(fields["operator"])
        fields["activation"] = Activation(fields["activation"])
        after = fields.get("residual_activation", Activation.NONE)
        fields["residual_activation"] = Activation(after)
        fields["precision"] = LayerPrecision.from_json(fields["precision"])
        return cls(**fields)
