from __future__ import annotations

import torch

from spaces.space import SearchSpace
from supernet.elastic import ElasticInvertedResidual
from supernet.supernet import layer_options


def block(space: SearchSpace, site: str) -> ElasticInvertedResidual:
    return ElasticInvertedResidual(site, layer_options(space)).train()


def specs(space: SearchSpace, **values: int):
    config = space.config({**space.max_config(), **values})
    return {s.site: s for s in space.layer_specs(config)}


def test_the_shortcut_carries_the_quantised_input(tiny_space):
    site = "stage1.block1"
    module = block(tiny_space, site)
    with torch.no_grad():
        module.project.norm.weight.zero_()  # only the shortcut is left
    x = torch.randn(4, 24, 6, 6)
    module.activate(specs(tiny_space))
    assert torch.equal(module(x), x)
    module.activate(specs(tiny_space, **{f"{site}.expand.w_bits": 8}))
    spec = module.expand.spec
    assert spec.precision.activation is not None
    expected = module.expand.input_quantizer(x, spec.precision.activation)
    torch.testing.assert_close(module(x), expected, rtol=0, atol=0)
    assert not torch.equal(expected, x)


def test_an_absent_block_is_the_identity(tiny_space):
    module = block(tiny_space, "stage1.block1")
    module.activate(specs(tiny_space, **{"stage1.depth": 1}))
    x = torch.randn(4, 24, 6, 6)
    assert module(x) is x


def test_squeeze_and_excite_takes_part_only_when_chosen(tiny_space):
    module = block(tiny_space, "stage1.block1")
    x = torch.randn(4, 24, 6, 6)
    module.activate(specs(tiny_space))
    module(x).sum().backward()
    assert module.se is not None
    assert module.se.squeeze_excite.reduce_weight.grad is not None
    module.zero_grad()
    module.activate(specs(tiny_space, **{"stage1.block1.se": 0}))
    module(x).sum().backward()
    assert module.se.squeeze_excite.reduce_weight.grad is None
