"""The ElasticViT supernet; its geometry comes from the space's LayerSpecs alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spaces.layer_spec import LayerSpec
from spaces.space import SearchSpace
from supernet.elastic.attention import ElasticAttention
from supernet.elastic.block import ElasticInvertedResidual
from supernet.elastic.layer import ElasticConvLayer, ElasticLayer, ElasticLinearLayer
from supernet.elastic.mlp import ElasticMlp
from supernet.elastic.options import LayerOptions
from supernet.families.registry import SUPERNETS
from supernet.families.streams import Block, stream_groups
from supernet.supernet import ChannelGroup, Supernet, layer_options


@SUPERNETS.register("elasticvit")
class ElasticViTSupernet(Supernet):
    """First convolution; inverted residual, attention and MLP blocks; head, pooling, two linear
    layers.

    Args:
        space: A space of the family `elasticvit`.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space)
        options = layer_options(space)
        self.stem = ElasticConvLayer(options["stem.conv"])
        sites = dict.fromkeys(site.rpartition(".")[0] for site in options if site.count(".") > 1)
        self.blocks = nn.ModuleList(_block(site, options) for site in sites)
        self.head = ElasticConvLayer(options["head"])
        self.feature = ElasticLinearLayer(options["feature"])
        self.classifier = ElasticLinearLayer(options["classifier"])
        self.activate(self.active)

    def _blocks(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]

    def layers(self) -> dict[str, ElasticLayer]:
        found: dict[str, ElasticLayer] = {"stem.conv": self.stem}
        for block in self._blocks():
            found |= block.layers()
        tail = {"head": self.head, "feature": self.feature, "classifier": self.classifier}
        return {**found, **tail}

    def activate_specs(self, specs: Mapping[str, LayerSpec]) -> None:
        for block in self._blocks():
            block.activate(specs)
        self.stem.activate(specs["stem.conv"])
        self.head.activate(specs["head"])
        self.feature.activate(specs["feature"])
        self.classifier.activate(specs["classifier"])

    def forward(self, x: Tensor) -> Tensor:
        # Channels-last: oneDNN's 1x1 and depthwise convolutions are several times faster, and
        # attention reads tokens without copies.
        x = self.stem(x).contiguous(memory_format=torch.channels_last)  # [N, C, R / 2, R / 2]
        for block in self.blocks:
            x = block(x)
        x = self.head(x).mean((2, 3))  # [N, C]
        out: Tensor = self.classifier(self.feature(x))
        return out

    def channel_groups(self) -> list[ChannelGroup]:
        """The residual stream of every stage, the stem, the head, and the inside of every inverted
        residual and MLP. The channels of heads keep their order: queries and keys share them."""
        groups = stream_groups("stem", self.stem, self._blocks(), self.head)
        return [*groups, ChannelGroup("head", (self.head,), (self.feature,))]


def _block(site: str, options: Mapping[str, LayerOptions]) -> Block:
    """The block whose layers the options have below `site`."""
    if f"{site}.core" in options:
        return ElasticAttention(site, options)
    if f"{site}.depthwise" in options:
        return ElasticInvertedResidual(site, options)
    return ElasticMlp(site, options)
