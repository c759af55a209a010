"""Residual block of convolutions (He et al. 2016): basic or bottleneck, as its LayerSpecs say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from spaces.layer_spec import LayerSpec
from supernet.elastic.layer import ElasticConvLayer, ElasticLayer
from supernet.elastic.options import LayerOptions
from supernet.elastic.switched import SwitchedModule


class ElasticResidualBlock(SwitchedModule):
    """activation(shortcut(x) + convolutions(x)); the shortcut is x, or its projection.

    The projection and the first convolution read one tensor, so both use one input quantiser, that
    of the convolution.

    Args:
        site: Prefix of its layers' sites, for example `stage1.block0`.
        options: Site -> options, in the order of execution, for at least this block's layers.
    """

    def __init__(self, site: str, options: Mapping[str, LayerOptions]) -> None:
        super().__init__()
        self.site = site
        own = [o for o in options.values() if o.largest.block == site]
        projections = [o for o in own if o.largest.shortcut]
        first, *rest = (o for o in own if not o.largest.shortcut)
        read = {scheme for o in (*projections, first) for scheme in o.activation_schemes}
        schemes = tuple(sorted(read, key=lambda scheme: scheme.key))
        self.first = ElasticConvLayer(replace(first, activation_schemes=schemes))
        self.rest = nn.ModuleList(ElasticConvLayer(o) for o in rest)
        self.projection = ElasticConvLayer(projections[0]) if projections else None
        if self.projection is not None:
            # Past nn.Module's bookkeeping: a parameter must not have two names in a state dict.
            del self.projection.input_quantizer
            self.projection.__dict__["input_quantizer"] = self.first.input_quantizer
        self.present = True

    def convolutions(self) -> list[ElasticConvLayer]:
        """The layers beside the shortcut, in the order of execution."""
        return [self.first, *(c for c in self.rest if isinstance(c, ElasticConvLayer))]

    def layers(self) -> dict[str, ElasticLayer]:
        """Site -> layer, in the order of execution, for every layer of the store."""
        projections = [] if self.projection is None else [self.projection]
        found = [*projections, *self.convolutions()]
        return {layer.options.largest.site: layer for layer in found}

    def activate(self, specs: Mapping[str, LayerSpec]) -> None:
        """Become the block that `specs` (site -> spec) describe; absent when they hold none."""
        layers = self.layers()
        self.present = all(site in specs for site in layers)
        if self.present:
            for site, layer in layers.items():
                layer.activate(specs[site])

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, I, H, W] -> [N, O, H', W']; `x` itself when the block is absent."""
        if not self.present:
            return x
        first, *rest = self.convolutions()
        read = first.quantize_input(x)
        out = first.compute(read)
        for layer in rest:
            out = layer(out)
        shortcut = read
        if self.projection is not None:
            alike = self.projection.spec.precision.activation == first.spec.precision.activation
            projected = read if alike else self.projection.quantize_input(x)
            shortcut = self.projection.compute(projected)
        last = (rest or [first])[-1]
        return last.add_shortcut(out, shortcut)
