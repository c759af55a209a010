from __future__ import annotations

import torch

from spaces.layer_spec import LayerSpec, Operator
from supernet.elastic import ElasticSqueezeExcite, LayerOptions


def spec(channels: int, hidden: int) -> LayerSpec:
    return LayerSpec(
        "se", Operator.SQUEEZE_EXCITE, channels, channels, 4, 4, hidden_channels=hidden
    )


def test_views_and_their_result():
    gate = ElasticSqueezeExcite(LayerOptions(spec(16, 8), (1,)))
    gate.activate(spec(8, 4))
    for view, store in zip(
        gate.views(),
        (gate.reduce_weight, gate.reduce_bias, gate.expand_weight, gate.expand_bias),
        strict=True,
    ):
        assert view.data_ptr() == store.data_ptr()
    x = torch.randn(2, 8, 4, 4)
    hidden = (x.mean((2, 3)) @ gate.reduce_weight[:4, :8].T + gate.reduce_bias[:4]).relu()
    scale = hidden @ gate.expand_weight[:8, :4].T + gate.expand_bias[:8]
    expected = x * ((scale + 3).clamp(0, 6) / 6)[:, :, None, None]
    torch.testing.assert_close(gate(x), expected)


def test_permutations_preserve_the_function():
    gate = ElasticSqueezeExcite(LayerOptions(spec(16, 8), (1,)))
    x, order = torch.randn(2, 16, 4, 4), torch.randperm(16)
    before = gate(x)
    gate.permute_hidden(torch.randperm(8))
    torch.testing.assert_close(gate(x), before)
    gate.permute_channels(order)
    torch.testing.assert_close(gate(x[:, order]), before[:, order])
