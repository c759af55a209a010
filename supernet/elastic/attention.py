"""Attention whose heads, and whose channels of a value, are parts of one store.

Channels lie head by head, [heads, channels of a head], so that fewer heads with narrower values
are a strided view [:heads, :channels]. What PyTorch needs flat is computed from the view when it
is used, not stored. An extracted subnet has queries, keys and values one after the other instead,
which compiled kernels read without copies; `export` reorders.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.layer_spec import LayerSpec
from supernet.activations import apply_activation
from supernet.attention import attend, position_bias
from supernet.elastic.affine import ElasticAffine, ElasticBias
from supernet.elastic.conv import ElasticConv2d
from supernet.elastic.layer import ElasticConvLayer, ElasticLayer
from supernet.elastic.norm import ElasticBatchNorm2d
from supernet.elastic.options import LayerOptions
from supernet.elastic.transformer_part import ElasticTransformerPart
from supernet.errors import SupernetConfigError
from supernet.folding import fold_float


class ElasticHeadAffine(ElasticAffine):
    """An `ElasticAffine` over the first channels of the first heads of its store.

    `affine` covers whole heads, with the channels that are not active.

    Args:
        channels: Of the store.
        heads: Of the store.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__(channels)
        self.width = self.share = channels // heads

    def activate_heads(self, heads: int, share: int) -> None:
        """Use the first `share` channels of the first `heads` heads."""
        self.activate(heads * self.width)
        self.share = share

    def _view(self, values: Tensor) -> Tensor:
        return _share(values[: self.active], self.width, self.share)


class ElasticHeadNorm(ElasticHeadAffine, ElasticBatchNorm2d):
    """BatchNorm; see `ElasticHeadAffine`."""


class ElasticHeadBias(ElasticHeadAffine, ElasticBias):
    """A bias; see `ElasticHeadAffine`."""


class ElasticQkvConv2d(ElasticConv2d):
    """1x1 convolution that writes queries, keys and values, head by head.

    Weights are quantised as whole heads, whose rows keep their scales whatever the channels of a
    value; `float_weight` and `export_int` return whole heads too.
    """

    def __init__(self, options: LayerOptions) -> None:
        super().__init__(options)
        self.width = self.share = options.largest.out_channels // options.largest.heads

    def activate(self, spec: LayerSpec) -> None:
        """Become `spec`; copies nothing."""
        super().activate(spec)
        self.share = spec.out_channels // spec.heads
        self.spec = replace(spec, out_channels=spec.heads * self.width)

    def active_weight(self) -> Tensor:
        """The active rows [O, I, 1, 1], fake-quantised when the active precision says so."""
        return _share(super().active_weight(), self.width, self.share).flatten(0, 1)


class ElasticQkvLayer(ElasticConvLayer):
    """`ElasticQkvConv2d` and BatchNorm, or a bias.

    Args:
        options: What the site must be able to become.
        norm: The kind of what follows the convolution.
    """

    conv: ElasticQkvConv2d
    norm: ElasticHeadAffine

    def __init__(
        self, options: LayerOptions, norm: type[ElasticHeadAffine] = ElasticHeadNorm
    ) -> None:
        big = options.largest
        super().__init__(options, ElasticQkvConv2d(options), norm(big.out_channels, big.heads))

    def activate(self, spec: LayerSpec) -> None:
        super().activate(spec)
        self.norm.activate_heads(spec.heads, spec.out_channels // spec.heads)

    def export_weights(self) -> dict[str, Tensor]:
        """See `ElasticLayer`: queries of all heads, their keys, their values."""
        whole = super().export_weights()
        heads, width, share = self.spec.heads, self.conv.width, self.conv.share
        places = torch.arange(heads * width, device=whole["bias"].device).view(heads, width)
        query = self.spec.in_channels // heads
        parts = (places[:, :query], places[:, query : 2 * query], places[:, 2 * query : share])
        rows = torch.cat([part.flatten() for part in parts])
        return {name: tensor[rows] for name, tensor in whole.items()}


class ElasticProjectionConv2d(ElasticConv2d):
    """1x1 convolution that reads the values of all heads, head by head."""

    def weight_view(self) -> Tensor:
        """The active weight [O, heads, channels of a value, 1, 1], a view of the store."""
        spec, big = self.spec, self.options.largest
        by_head = self.weight.view(big.out_channels, big.heads, -1, 1, 1)
        return by_head[: spec.out_channels, : spec.heads, : spec.in_channels // spec.heads]

    def float_weight(self) -> Tensor:
        """The active float32 weight [O, I, 1, 1]; a view where the values have all channels."""
        return self.weight_view().flatten(1, 2)


class ElasticAttentionLayer(ElasticLayer):
    """Attention itself, in float32: depthwise convolution of the values, position biases.

    The convolution is followed by BatchNorm, as in ElasticViT's blocks with BatchNorm, or has a
    bias.

    Args:
        options: The store's heads, channels, and its largest map, for which biases are stored.
        norm: The kind of what follows the convolution.
    """

    def __init__(
        self, options: LayerOptions, norm: type[ElasticHeadAffine] = ElasticHeadNorm
    ) -> None:
        super().__init__(options)
        big = options.largest
        _, self.width = big.head_channels
        self.weight = nn.Parameter(torch.empty(big.out_channels, 1, big.kernel, big.kernel))
        nn.init.normal_(self.weight, std=math.sqrt(1 / big.kernel**2))
        self.norm = norm(big.out_channels, big.heads)
        self.position = nn.Parameter(torch.zeros(big.heads, big.in_size, big.in_size))

    def activate(self, spec: LayerSpec) -> None:
        """Become `spec`; copies nothing.

        Raises:
            SupernetConfigError: It has other channels of a query or a larger map than the store.
        """
        self.options.check(spec)
        big, (query, value) = self.options.largest, spec.head_channels
        if query != big.head_channels[0] or spec.in_size > big.in_size:
            raise SupernetConfigError(f"{spec} does not fit in the supernet, which has {big}")
        super().activate(spec)
        self.norm.activate_heads(spec.heads, value)

    def depthwise_view(self) -> Tensor:
        """The active depthwise weight [heads, channels of a value, 1, k, k], a view."""
        heads, (_, value) = self.spec.heads, self.spec.head_channels
        return _share(self.weight[: heads * self.width], self.width, value)

    def position_view(self) -> Tensor:
        """The active biases [heads, R, R] by distance |dy|, |dx|, a view."""
        size = self.spec.in_size
        return self.position[: self.spec.heads, :size, :size]

    def compute(self, x: Tensor) -> Tensor:
        """float32 [N, heads * (query, key, value), R, R] -> [N, heads * value, R, R]."""
        spec = self.spec
        (n, _, height, width), heads = x.shape, spec.heads
        query, value = spec.head_channels
        # Nothing is copied where the map is stored channels-last.
        tokens = x.permute(0, 2, 3, 1).reshape(n, height * width, heads, -1)
        q, k, v = torch.split(tokens, [query, query, value], dim=3)  # [N, T, heads, d]
        values = v.reshape(n, height, width, spec.out_channels).permute(0, 3, 1, 2)
        weight = self.depthwise_view().flatten(0, 1)
        values = F.conv2d(values, weight, None, 1, spec.padding, groups=spec.out_channels)
        v = self.norm(values).permute(0, 2, 3, 1).reshape(n, height * width, heads, value)
        bias = position_bias(self.position_view())
        out = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), bias)
        out = out.transpose(1, 2).reshape(n, height, width, spec.out_channels)
        return apply_activation(out.permute(0, 3, 1, 2), spec.activation)

    def calibrate_weights(self) -> None:
        """Nothing to do: the weights are float32."""

    @torch.no_grad()
    def export_weights(self) -> dict[str, Tensor]:
        heads, (_, value) = self.spec.heads, self.spec.head_channels
        whole = fold_float(self.weight[: heads * self.width], *self.norm.affine())
        active = {
            f"depthwise.{name}": _share(tensor, self.width, value).flatten(0, 1)
            for name, tensor in whole.items()
        }
        return {**active, "position.bias": self.position_view().detach().clone()}


class ElasticAttention(ElasticTransformerPart):
    """[norm ->] qkv -> core -> project + input. See `ElasticTransformerPart`."""

    names = ("qkv", "core", "project")

    def __init__(self, site: str, options: Mapping[str, LayerOptions]) -> None:
        super().__init__(site, options)
        project = options[f"{site}.project"]
        by_head = ElasticHeadNorm if self.norm is None else ElasticHeadBias
        written = project.largest.out_channels
        after = ElasticBatchNorm2d(written) if self.norm is None else ElasticBias(written)
        self.qkv = ElasticQkvLayer(options[f"{site}.qkv"], by_head)
        self.core = ElasticAttentionLayer(options[f"{site}.core"], by_head)
        self.project = ElasticConvLayer(project, ElasticProjectionConv2d(project), after)
        # A block begins as its shortcut.
        self.project.begin_at_zero()


def _share(values: Tensor, width: int, share: int) -> Tensor:
    """The first channels of every head: [heads * width, ...] -> [heads, share, ...], a view."""
    return values.view(-1, width, *values.shape[1:])[:, :share]
