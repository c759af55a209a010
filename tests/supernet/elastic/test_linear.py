from __future__ import annotations

import torch
import torch.nn.functional as F

from spaces.layer_spec import LayerSpec, Operator
from spaces.quant_scheme import S8_WEIGHT, U8_ACTIVATION, W8A8
from supernet.elastic import ElasticLinear, LayerOptions


def spec(inputs: int, outputs: int, **more: object) -> LayerSpec:
    return LayerSpec("fc", Operator.LINEAR, inputs, outputs, **more)  # type: ignore[arg-type]


def test_slices_are_views_of_the_store():
    linear = ElasticLinear(LayerOptions(spec(32, 10), (1,), (S8_WEIGHT,), (U8_ACTIVATION,)))
    linear.activate(spec(16, 10))
    assert linear.active_weight().data_ptr() == linear.weight.data_ptr()
    assert linear.bias_view().data_ptr() == linear.bias.data_ptr()
    x = torch.randn(4, 16)
    torch.testing.assert_close(linear(x), F.linear(x, linear.weight[:, :16], linear.bias))


def test_quantised_weight_equals_its_integers():
    linear = ElasticLinear(LayerOptions(spec(32, 10), (1,), (S8_WEIGHT,), (U8_ACTIVATION,)))
    linear.calibrate_weights()
    linear.activate(spec(24, 10, precision=W8A8))
    assert torch.equal(linear.export_int().dequantize(), linear.active_weight())
    assert not torch.equal(linear.active_weight(), linear.weight_view())


def test_permuting_features_and_inputs_alike_changes_nothing():
    linear = ElasticLinear(LayerOptions(spec(32, 10), (1,)))
    x, order = torch.randn(4, 32), torch.randperm(32)
    before = linear(x)
    linear.permute_inputs(order)
    torch.testing.assert_close(linear(x[:, order]), before)
