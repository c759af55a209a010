from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from spaces.layer_spec import LayerSpec, Operator
from spaces.quant_scheme import S8_WEIGHT, U8_ACTIVATION, W8A8
from supernet.elastic import ElasticConv2d, LayerOptions
from supernet.errors import SupernetConfigError


def dense(inputs: int, outputs: int, kernel: int, **more: object) -> LayerSpec:
    return LayerSpec("conv", Operator.CONV, inputs, outputs, 9, 9, kernel, **more)  # type: ignore[arg-type]


def depthwise(channels: int, kernel: int, **more: object) -> LayerSpec:
    return LayerSpec(  # type: ignore[arg-type]
        "dw", Operator.DEPTHWISE_CONV, channels, channels, 9, 9, kernel, groups=channels, **more
    )


def test_slices_are_views_of_the_store():
    conv = ElasticConv2d(LayerOptions(dense(16, 24, 3), (3,)))
    conv.activate(dense(8, 16, 3))
    for view in (conv.weight_view(), conv.float_weight(), conv.active_weight()):
        assert view.shape == (16, 8, 3, 3)
        assert view.untyped_storage().data_ptr() == conv.weight.untyped_storage().data_ptr()


def test_depthwise_slices_output_channels_and_keeps_one_input():
    conv = ElasticConv2d(LayerOptions(depthwise(16, 5), (3, 5)))
    conv.activate(depthwise(8, 5))
    x = torch.randn(2, 8, 9, 9)
    expected = F.conv2d(x, conv.weight[:8], padding=2, groups=8)
    torch.testing.assert_close(conv(x), expected)
    assert conv.weight_view().data_ptr() == conv.weight.data_ptr()


def test_small_kernels_start_as_the_centre_and_chain_through_learned_maps():
    conv = ElasticConv2d(LayerOptions(depthwise(8, 7), (3, 5, 7)))
    conv.activate(depthwise(8, 3))
    assert torch.equal(conv.float_weight(), conv.weight[:, :, 2:5, 2:5])

    first, second = torch.randn(25, 25), torch.randn(9, 9)
    with torch.no_grad():
        conv.kernel_transforms["k5"].copy_(first)
        conv.kernel_transforms["k3"].copy_(second)
    five = (conv.weight[:, :, 1:6, 1:6].reshape(8, 1, 25) @ first.T).view(8, 1, 5, 5)
    three = (five[:, :, 1:4, 1:4].reshape(8, 1, 9) @ second.T).view(8, 1, 3, 3)
    torch.testing.assert_close(conv.float_weight(), three)
    conv.activate(depthwise(8, 5))
    torch.testing.assert_close(conv.float_weight(), five)


def test_gradients_reach_the_store_and_the_maps_in_use():
    conv = ElasticConv2d(LayerOptions(depthwise(8, 5), (3, 5)))
    conv.activate(depthwise(4, 3))
    conv(torch.randn(2, 4, 9, 9)).square().sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad[:4, :, 1:4, 1:4].abs().min() > 0
    assert conv.weight.grad[4:].abs().max() == 0
    assert conv.kernel_transforms["k3"].grad is not None


def test_every_kernel_has_weight_scales_of_its_own():
    conv = ElasticConv2d(LayerOptions(depthwise(8, 5), (3, 5), (S8_WEIGHT,), (U8_ACTIVATION,)))
    conv.calibrate_weights()
    scales = {}
    for kernel in (3, 5):
        conv.activate(depthwise(8, kernel, precision=W8A8))
        integers = conv.export_int()
        assert torch.equal(integers.dequantize(), conv.active_weight())
        scales[kernel] = integers.scale
        assert integers.codes.abs().amax((1, 2, 3)).min() >= 100
    assert not torch.equal(scales[3], scales[5])


def test_a_spec_beyond_the_store_is_a_typed_error():
    conv = ElasticConv2d(LayerOptions(dense(16, 24, 3), (3,)))
    for spec in (dense(24, 24, 3), dense(16, 32, 3), dense(16, 24, 5)):
        with pytest.raises(SupernetConfigError, match="does not fit"):
            conv.activate(spec)
    with pytest.raises(ValueError, match="no integers"):
        conv.export_int()
