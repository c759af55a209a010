"""The MLP of a transformer block, as 1x1 convolutions."""

from __future__ import annotations

from collections.abc import Mapping

from supernet.elastic.affine import ElasticBias
from supernet.elastic.layer import ElasticConvLayer
from supernet.elastic.options import LayerOptions
from supernet.elastic.transformer_part import ElasticTransformerPart


class ElasticMlp(ElasticTransformerPart):
    """[norm ->] expand -> project + input. See `ElasticTransformerPart`."""

    names = ("expand", "project")

    def __init__(self, site: str, options: Mapping[str, LayerOptions]) -> None:
        super().__init__(site, options)
        self.expand = self._layer(options[f"{site}.expand"])
        self.project = self._layer(options[f"{site}.project"])
        # A block begins as its shortcut.
        self.project.begin_at_zero()

    def _layer(self, options: LayerOptions) -> ElasticConvLayer:
        bias = ElasticBias(options.largest.out_channels) if self.norm is not None else None
        return ElasticConvLayer(options, norm=bias)
