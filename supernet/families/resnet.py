"""The ResNet supernet; its geometry comes from the space's LayerSpecs alone."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.layer_spec import LayerSpec, Operator
from spaces.space import SearchSpace
from supernet.elastic.layer import ElasticConvLayer, ElasticLayer, ElasticLinearLayer
from supernet.elastic.residual import ElasticResidualBlock
from supernet.families.registry import SUPERNETS
from supernet.supernet import ChannelGroup, Supernet, layer_options


@SUPERNETS.register("resnet")
class ResNetSupernet(Supernet):
    """Stem, residual blocks, global pooling, classifier.

    Args:
        space: A space of the family `resnet`.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space)
        options = layer_options(space)
        largest = [option.largest for option in options.values()]
        sites = dict.fromkeys(spec.block for spec in largest if spec.block)
        self.stem = ElasticConvLayer(options["stem"])
        self.stem_pool = next((s for s in largest if s.operator is Operator.MAX_POOL), None)
        self.blocks = nn.ModuleList(ElasticResidualBlock(site, options) for site in sites)
        self.classifier = ElasticLinearLayer(options["classifier"])
        self.activate(self.active)

    def _blocks(self) -> list[ElasticResidualBlock]:
        return [b for b in self.blocks if isinstance(b, ElasticResidualBlock)]

    def layers(self) -> dict[str, ElasticLayer]:
        found: dict[str, ElasticLayer] = {"stem": self.stem}
        for block in self._blocks():
            found |= block.layers()
        return found | {"classifier": self.classifier}

    def activate_specs(self, specs: Mapping[str, LayerSpec]) -> None:
        for block in self._blocks():
            block.activate(specs)
        self.stem.activate(specs["stem"])
        self.classifier.activate(specs["classifier"])

    def forward(self, x: Tensor) -> Tensor:
        # Channels-last as in `MobileNetV3Supernet.forward`.
        x = self.stem(x).contiguous(memory_format=torch.channels_last)  # [N, C, H, W]
        if (pool := self.stem_pool) is not None:
            x = F.max_pool2d(x, pool.kernel, pool.stride, pool.padding)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.classifier(x.mean((2, 3)))
        return out

    def channel_groups(self) -> list[ChannelGroup]:
        """The residual stream of every stage, the stem, and the widths inside each block."""
        groups: list[ChannelGroup] = []
        name, writers, readers = "stem", [self.stem], list[ElasticLayer]()
        for block in self._blocks():
            convolutions = block.convolutions()
            readers.append(convolutions[0])
            if block.projection is not None:
                readers.append(block.projection)
            stage = block.site.partition(".")[0]
            if stage != name:
                groups.append(ChannelGroup(name, tuple(writers), tuple(readers)))
                name, writers, readers = stage, [], []
            if block.projection is not None:
                writers.append(block.projection)
            writers.append(convolutions[-1])
            for writer, reader in pairwise(convolutions):
                groups.append(ChannelGroup(writer.spec.site, (writer,), (reader,)))
        groups.append(ChannelGroup(name, tuple(writers), (*readers, self.classifier)))
        return groups
