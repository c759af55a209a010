"""The MLP of a transformer block, as 1x1 convolutions."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from spaces.layer_spec import LayerSpec
from supernet.elastic.affine import ElasticBias
from supernet.elastic.layer import ElasticConvLayer, ElasticLayer
from supernet.elastic.layer_norm import ElasticLayerNorm
from supernet.elastic.options import LayerOptions
from supernet.elastic.switched import SwitchedModule

LAYERS = ("norm", "expand", "project")


class ElasticMlp(SwitchedModule):
    """[norm ->] expand -> project + input.

    Behind a LayerNorm its convolutions have biases, else BatchNorm.

    Args:
        site: Prefix of its layers' sites, for example `stage3.block0.mlp`.
        options: Site -> options, for at least this block's layers.
    """

    def __init__(self, site: str, options: Mapping[str, LayerOptions]) -> None:
        super().__init__()
        self.site = site
        norm = options.get(f"{site}.norm")
        self.norm = ElasticLayerNorm(norm) if norm else None
        self.expand = self._layer(options[f"{site}.expand"])
        self.project = self._layer(options[f"{site}.project"])
        # A block begins as its shortcut.
        self.project.begin_at_zero()
        self.present = True

    def _layer(self, options: LayerOptions) -> ElasticConvLayer:
        bias = ElasticBias(options.largest.out_channels) if self.norm is not None else None
        return ElasticConvLayer(options, norm=bias)

    def layers(self) -> dict[str, ElasticLayer]:
        """Site -> layer, in the order of execution."""
        found = {name: getattr(self, name) for name in LAYERS}
        return {f"{self.site}.{name}": layer for name, layer in found.items() if layer is not None}

    def activate(self, specs: Mapping[str, LayerSpec]) -> None:
        """Become the block that `specs` (site -> spec) describe; absent when they hold none."""
        self.present = f"{self.site}.project" in specs
        if self.present:
            for site, layer in self.layers().items():
                layer.activate(specs[site])

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, C, R, R] -> the same shape; `x` itself when the block is absent."""
        if not self.present:
            return x
        if self.norm is None:
            x = read = self.expand.quantize_input(x)
        else:
            read = self.expand.quantize_input(self.norm.compute(x))
        out: Tensor = self.project(self.expand.compute(read))
        return out + x
