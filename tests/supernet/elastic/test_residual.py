from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from supernet.elastic import ElasticResidualBlock
from supernet.supernet import layer_options
from tests.supernet.resnets import basic_space, bottleneck_space


def block(space, site):
    torch.manual_seed(0)
    return ElasticResidualBlock(site, layer_options(space)).train()


def specs(space, **values):
    config = space.config({**space.max_config(), **values})
    return {s.site: s for s in space.layer_specs(config)}


def plain(layer, x):
    """Convolution and normalisation of a layer, by PyTorch."""
    weight, stride = layer.conv.weight, layer.spec.stride
    out = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2)
    return F.batch_norm(out, None, None, layer.norm.weight, layer.norm.bias, training=True)


@pytest.mark.parametrize("space", [basic_space(), bottleneck_space()], ids=lambda s: s.name)
@pytest.mark.parametrize("site", ["stage2.block0", "stage2.block1"])
def test_a_block_is_the_published_one(space, site):
    module = block(space, site)
    module.activate(specs(space))
    first = module.first.spec
    x = torch.randn(4, first.in_channels, first.in_size, first.in_size)
    out = x
    *inner, last = module.convolutions()
    for layer in inner:
        out = F.relu(plain(layer, out))
    shortcut = x if module.projection is None else plain(module.projection, x)
    assert (module.projection is None) == site.endswith("block1")
    expected = F.relu(plain(last, out) + shortcut)
    torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-5)
    strides = [layer.spec.stride for layer in module.convolutions()]
    if site.endswith("block0"):
        assert strides == ([2, 1] if space.name == "basic" else [1, 2, 1])


def test_an_absent_block_is_the_identity():
    space = basic_space()
    module = block(space, "stage1.block1")
    module.activate(specs(space, **{"stage1.depth": 1}))
    x = torch.randn(4, 24, 6, 6)
    assert module(x) is x


def test_the_shortcut_carries_the_quantised_input():
    space, site = basic_space(), "stage1.block1"
    module = block(space, site)
    with torch.no_grad():
        module.convolutions()[-1].norm.weight.zero_()  # only the shortcut is left
    x = torch.rand(4, 24, 6, 6)
    module.activate(specs(space))
    assert torch.equal(module(x), x)
    module.activate(specs(space, **{f"{site}.conv1.w_bits": 8}))
    expected = module.first.input_quantizer(x, module.first.spec.precision.activation)
    torch.testing.assert_close(module(x), expected.relu(), rtol=0, atol=0)
    assert not torch.equal(expected, x)


@pytest.mark.parametrize(("projection", "first"), [(8, 8), (8, 32), (32, 8)])
def test_each_reader_of_a_block_gets_its_own_precision(projection, first):
    space, site = basic_space(), "stage2.block0"
    module = block(space, site)
    bits = {f"{site}.projection.w_bits": projection, f"{site}.conv1.w_bits": first}
    module.activate(specs(space, **bits))
    read = {}
    for name in ("projection", "first"):
        layer = getattr(module, name)
        layer.conv.register_forward_hook(lambda _m, x, _y, name=name: read.update({name: x[0]}))
    x = torch.rand(2, 24, 6, 6)
    module(x)
    quantised = {
        32: x,
        8: module.first.input_quantizer(x, module.first.options.activation_schemes[0]),
    }
    assert torch.equal(read["projection"], quantised[projection])
    assert torch.equal(read["first"], quantised[first])


def test_a_projection_may_be_the_only_integer_reader_of_a_store():
    wide = basic_space()
    site = "stage2.block0"
    fixed = {f"{site}.conv1.w_bits": [32], f"{site}.projection.w_bits": [8]}
    space = wide.restrict(choices=fixed)
    module = block(space, site)
    module.activate(specs(space))
    x = torch.rand(2, 24, 6, 6)
    module.projection.observed = []
    module.projection.quantize_input(x)
    module.projection.calibrate_input()
    scheme = module.projection.spec.precision.activation
    assert (module.projection.quantize_input(x) - x).abs().max() < 1 / 255
    scale = module.projection.export()["input_scale"]
    assert torch.equal(scale, module.first.input_quantizer.export_int(x, scheme).scale)
