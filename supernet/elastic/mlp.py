"""The MLP of a transformer block, as 1x1 convolutions."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from spaces.layer_spec import LayerSpec
from supernet.elastic.layer import ElasticConvLayer, ElasticLayer
from supernet.elastic.options import LayerOptions


class ElasticMlp(nn.Module):
    """expand -> project + input.

    Args:
        site: Prefix of its layers' sites, for example `stage3.block0.mlp`.
        options: Site -> options, for at least this block's layers.
    """

    def __init__(self, site: str, options: Mapping[str, LayerOptions]) -> None:
        super().__init__()
        self.site = site
        self.expand = ElasticConvLayer(options[f"{site}.expand"])
        self.project = ElasticConvLayer(options[f"{site}.project"])
        # A block begins as its shortcut (LeViT, Graham et al. 2021).
        nn.init.zeros_(self.project.norm.weight)
        self.present = True

    def layers(self) -> dict[str, ElasticLayer]:
        """Site -> layer, in the order of execution."""
        return {f"{self.site}.expand": self.expand, f"{self.site}.project": self.project}

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
        x = self.expand.quantize_input(x)
        out: Tensor = self.project(self.expand.compute(x))
        return out + x
