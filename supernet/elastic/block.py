"""Inverted residual block (Sandler et al. 2018; with squeeze-and-excite, Howard et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from spaces.layer_spec import LayerSpec
from supernet.elastic.layer import ElasticConvLayer, ElasticLayer, ElasticSqueezeExciteLayer
from supernet.elastic.options import LayerOptions
from supernet.elastic.switched import SwitchedModule

LAYERS = ("expand", "depthwise", "se", "project")


class ElasticInvertedResidual(SwitchedModule):
    """[expand ->] depthwise -> [squeeze-and-excite] -> project [+ input].

    Args:
        site: Prefix of its layers' sites, for example `stage1.block0`.
        options: Site -> options, for at least this block's layers.
    """

    def __init__(self, site: str, options: Mapping[str, LayerOptions]) -> None:
        super().__init__()
        self.site = site
        expand = options.get(f"{site}.expand")
        self.expand = ElasticConvLayer(expand) if expand else None
        self.depthwise = ElasticConvLayer(options[f"{site}.depthwise"])
        self.project = ElasticConvLayer(options[f"{site}.project"])
        se = options.get(f"{site}.se")
        self.se = ElasticSqueezeExciteLayer(se) if se else None
        self.present = True
        self.squeezes = se is not None

    def layers(self) -> dict[str, ElasticLayer]:
        """Site -> layer, in the order of execution, for every layer of the store."""
        found = {name: getattr(self, name) for name in LAYERS}
        return {f"{self.site}.{name}": layer for name, layer in found.items() if layer is not None}

    def activate(self, specs: Mapping[str, LayerSpec]) -> None:
        """Become the block that `specs` (site -> spec) describe; absent when they hold none."""
        self.present = f"{self.site}.project" in specs
        self.squeezes = f"{self.site}.se" in specs
        for site, layer in self.layers().items():
            if site in specs:
                layer.activate(specs[site])

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, I, H, W] -> [N, O, H', W']; `x` itself when the block is absent."""
        if not self.present:
            return x
        first = self.depthwise if self.expand is None else self.expand
        x = first.quantize_input(x)
        out = first.compute(x)
        if self.expand is not None:
            out = self.depthwise(out)
        if self.squeezes and self.se is not None:
            out = self.se(out)
        out = self.project(out)
        return self.project.add_shortcut(out, x) if self.project.spec.residual else out
