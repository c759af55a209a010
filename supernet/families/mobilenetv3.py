"""The MobileNetV3 supernet; its geometry comes from the space's LayerSpecs alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spaces.layer_spec import LayerSpec
from spaces.space import SearchSpace
from supernet.elastic.block import ElasticInvertedResidual
from supernet.elastic.layer import ElasticConvLayer, ElasticLayer, ElasticLinearLayer
from supernet.families.registry import SUPERNETS
from supernet.families.streams import stream_groups
from supernet.supernet import ChannelGroup, Supernet, layer_options


@SUPERNETS.register("mobilenetv3")
class MobileNetV3Supernet(Supernet):
    """Stem, inverted residual blocks, head, global pooling, classifier.

    Args:
        space: A space of the family `mobilenetv3`.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space)
        options = layer_options(space)
        sites = dict.fromkeys(site.rpartition(".")[0] for site in options if "." in site)
        self.stem = ElasticConvLayer(options["stem"])
        self.blocks = nn.ModuleList(ElasticInvertedResidual(site, options) for site in sites)
        self.head = ElasticConvLayer(options["head"])
        self.classifier = ElasticLinearLayer(options["classifier"])
        self.activate(self.active)

    def _blocks(self) -> list[ElasticInvertedResidual]:
        return [b for b in self.blocks if isinstance(b, ElasticInvertedResidual)]

    def layers(self) -> dict[str, ElasticLayer]:
        found: dict[str, ElasticLayer] = {"stem": self.stem}
        for block in self._blocks():
            found |= block.layers()
        return found | {"head": self.head, "classifier": self.classifier}

    def activate_specs(self, specs: Mapping[str, LayerSpec]) -> None:
        for block in self._blocks():
            block.activate(specs)
        self.stem.activate(specs["stem"])
        self.head.activate(specs["head"])
        self.classifier.activate(specs["classifier"])

    def forward(self, x: Tensor) -> Tensor:
        # oneDNN's 1x1 and depthwise convolutions are several times faster in channels-last; a
        # single-channel image cannot ask for it, so the first map does.
        x = self.stem(x).contiguous(memory_format=torch.channels_last)  # [N, C, R / 2, R / 2]
        for block in self.blocks:
            x = block(x)
        x = self.head(x).mean((2, 3))  # [N, C]
        out: Tensor = self.classifier(x)
        return out

    def channel_groups(self) -> list[ChannelGroup]:
        """The residual stream of every stage, the stem, the head, and each block's inside."""
        groups = stream_groups("stem", self.stem, self._blocks(), self.head)
        return [*groups, ChannelGroup("head", (self.head,), (self.classifier,))]
