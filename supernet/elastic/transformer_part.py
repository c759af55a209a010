"""What the attention and the MLP of a transformer block share: a norm, layers, the input added."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from spaces.layer_spec import LayerSpec
from supernet.elastic.layer import ElasticConvLayer, ElasticLayer
from supernet.elastic.layer_norm import ElasticLayerNorm
from supernet.elastic.options import LayerOptions
from supernet.elastic.switched import SwitchedModule


class ElasticTransformerPart(SwitchedModule):
    """[norm ->] the layers `names` + input; the last is `project`, which tells its presence.

    Behind a LayerNorm its convolutions have biases, else BatchNorm.

    Args:
        site: Prefix of its layers' sites, for example `stage3.block0.mlp`.
        options: Site -> options, for at least this part's layers.
    """

    names: ClassVar[tuple[str, ...]]
    project: ElasticConvLayer

    def __init__(self, site: str, options: Mapping[str, LayerOptions]) -> None:
        super().__init__()
        self.site = site
        norm = options.get(f"{site}.norm")
        self.norm = ElasticLayerNorm(norm) if norm else None
        self.present = True

    def layers(self) -> dict[str, ElasticLayer]:
        """Site -> layer, in the order of execution."""
        found = {} if self.norm is None else {f"{self.site}.norm": self.norm}
        return found | {f"{self.site}.{name}": getattr(self, name) for name in self.names}

    def activate(self, specs: Mapping[str, LayerSpec]) -> None:
        """Become the part that `specs` (site -> spec) describe; absent when they hold none."""
        self.present = f"{self.site}.project" in specs
        if self.present:
            for site, layer in self.layers().items():
                layer.activate(specs[site])

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, C, R, R] -> the same shape; `x` itself when the part is absent."""
        if not self.present:
            return x
        first, *rest = (getattr(self, name) for name in self.names)
        if self.norm is None:
            x = read = first.quantize_input(x)
        else:
            read = first.quantize_input(self.norm.compute(x))
        out: Tensor = first.compute(read)
        for layer in rest:
            out = layer(out)
        return self.project.add_shortcut(out, x)
