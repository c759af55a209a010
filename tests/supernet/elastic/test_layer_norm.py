from __future__ import annotations

import torch

from spaces.layer_spec import LAYER_NORM_EPSILON, LayerSpec, Operator
from supernet.elastic import ElasticLayerNorm, LayerOptions
from supernet.subnet_layers import build_layer


def spec(channels: int) -> LayerSpec:
    return LayerSpec("n", Operator.LAYER_NORM, channels, channels, 5, 5)


def layer() -> ElasticLayerNorm:
    torch.manual_seed(0)
    found = ElasticLayerNorm(LayerOptions(spec(32), (1,)))
    with torch.no_grad():
        found.weight.normal_()
        found.bias.normal_()
    return found


def test_a_pixel_is_normalised_by_its_active_channels():
    found = layer()
    found.activate(spec(16))
    x = 3 * torch.randn(2, 16, 5, 5) + 2
    centred = x - x.mean(1, keepdim=True)
    unit = centred / (centred.square().mean(1, keepdim=True) + LAYER_NORM_EPSILON).sqrt()
    expected = unit * found.weight[:16, None, None] + found.bias[:16, None, None]
    for mode in (True, False):
        torch.testing.assert_close(found.train(mode)(x), expected)
    torch.testing.assert_close(found(x[:1]), expected[:1])


def test_it_computes_in_float32_whatever_autocast_computed_before():
    found = layer()
    x = torch.randn(2, 32, 5, 5).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = found(x)
    assert out.dtype is torch.float32
    torch.testing.assert_close(out, found(x.float()))


def test_a_channels_last_map_stays_one():
    x = torch.randn(2, 32, 5, 5).contiguous(memory_format=torch.channels_last)
    assert layer()(x).is_contiguous(memory_format=torch.channels_last)


def test_the_extracted_layer_computes_the_same():
    found = layer()
    found.activate(spec(24))
    plain = build_layer(spec(24))
    plain.load_state_dict(found.export())
    x = torch.randn(2, 24, 5, 5)
    assert torch.equal(plain(x), found(x))


def test_reordered_channels_are_normalised_alike():
    found = layer()
    x = torch.randn(2, 32, 5, 5)
    before, order = found(x), torch.randperm(32)
    found.permute_channels(order)
    torch.testing.assert_close(found(x[:, order]), before[:, order])
