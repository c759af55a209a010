"""The supernet of `plain_cnn`, of netcarve's elastic layers."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from spaces.layer_spec import LayerSpec
from spaces.space import SearchSpace
from supernet.elastic import ElasticConvLayer, ElasticLayer, ElasticLinearLayer
from supernet.supernet import ChannelGroup, Supernet, layer_options


class PlainCnnSupernet(Supernet):
    """Stem, convolutions, global pooling, classifier."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space)
        options = layer_options(space)
        convolutions = [o for site, o in options.items() if site.endswith(".conv")]
        self.stem = ElasticConvLayer(options["stem"])
        self.convolutions = nn.ModuleList(map(ElasticConvLayer, convolutions))
        self.classifier = ElasticLinearLayer(options["classifier"])
        self.depth = len(convolutions)
        self.activate(self.active)

    def layers(self) -> dict[str, ElasticLayer]:
        found = [self.stem, *self.convolutions, self.classifier]
        return {layer.options.largest.site: layer for layer in found}

    def activate_specs(self, specs: Mapping[str, LayerSpec]) -> None:
        self.depth = sum(site.endswith(".conv") for site in specs)
        for site, layer in self.layers().items():
            if site in specs:
                layer.activate(specs[site])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)  # [N, C, R / 2, R / 2]
        for convolution in self.convolutions[: self.depth]:
            x = convolution(x)
        return self.classifier(x.mean((2, 3)))

    def channel_groups(self) -> list[ChannelGroup]:
        # A skipped convolution passes its input on: one order of channels for all.
        layers = [self.stem, *self.convolutions]
        return [ChannelGroup("width", tuple(layers), (*layers[1:], self.classifier))]
