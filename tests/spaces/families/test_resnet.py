from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from spaces import FP32, Activation, Operator, cost, get_space
from spaces.families import ResNetSettings
from spaces.population import sample

DIGITS = get_space("resnet_digits")
IMAGENET = get_space("resnet_imagenet")


def test_resnet_50_is_a_config():
    depths = {f"stage{i}.depth": depth for i, depth in enumerate((3, 4, 6, 3), start=1)}
    ratios = {name: 25 for name in IMAGENET.names if name.endswith("expansion")}
    config = IMAGENET.config({**IMAGENET.max_config(), **depths, **ratios})
    layers = IMAGENET.layer_specs(config)
    found = cost(layers)
    # 25 557 032 in PyTorch, where normalisation has a scale and an offset for each of 26 560
    # channels; folded, the offset alone is left.
    assert found.params == 25_557_032 - 26_560
    assert round(found.macs / 1e9, 3) == 4.089
    assert [s.out_size for s in layers if s.site in ("stem", "stem_pool")] == [112, 56]
    assert [s.in_size for s in layers if s.operator is Operator.GLOBAL_POOL] == [7]


@pytest.mark.parametrize("space", [DIGITS, IMAGENET], ids=lambda space: space.name)
def test_blocks_are_projection_then_convolutions(space):
    last = "conv2" if space is DIGITS else "conv3"
    blocks = [slot for slot in space.slots if slot.depth is not None]
    for row in sample(space, 8, np.random.default_rng(0)):
        config = space.from_indices(row)
        for slot in blocks:
            layers = slot.layers(config)
            names = [layer.site.rpartition(".")[2] for layer in layers]
            projects = slot.name.endswith("block0")
            assert [layer.shortcut for layer in layers] == [n == "projection" for n in names]
            assert (names[0] == "projection") == projects
            assert [layer.residual for layer in layers] == [name == last for name in names]
            assert layers[-1].residual_activation is Activation.RELU
            assert layers[-1].activation is layers[0].activation is Activation.NONE or not projects
            assert all(layer.activation is Activation.RELU for layer in layers[projects:-1])


def test_values_reach_the_layers():
    values = DIGITS.max_config().to_json() | {
        "resolution": 12, "stage2.depth": 1, "stage2.width": 32, "stage2.block0.expansion": 50,
        "stage2.block0.projection.w_bits": 8, "stage2.block0.conv2.w_bits": 8,
    }  # fmt: skip
    layers = {layer.site: layer for layer in DIGITS.layer_specs(DIGITS.config(values))}
    assert layers["stem"].in_size == layers["stem"].out_size == 12
    assert "stage2.block1.conv1" not in layers
    projection, first, second = (
        layers[f"stage2.block0.{name}"] for name in ("projection", "conv1", "conv2")
    )
    assert (projection.in_channels, projection.out_channels) == (24, 32)
    assert (first.in_channels, first.out_channels, second.out_channels) == (24, 16, 32)
    assert projection.out_size == first.out_size == second.in_size == 6
    assert [s.precision.name for s in (projection, first, second)] == ["w8a8", "fp32", "w8a8"]
    assert layers["stem"].precision == FP32


def test_choices_that_are_one_network_are_refused():
    stage = {"width": (24,), "depth": (1,), "expansion": (50, 70)}
    settings = {
        "input_channels": 1, "classes": 10, "resolution": (8,), "block": "basic", "stem": (8,),
    }  # fmt: skip
    with pytest.raises(ValidationError, match=r"\(50, 70\) of width 24 give \[16, 16\] channels"):
        ResNetSettings.model_validate(settings | {"stages": (stage,)})
    ResNetSettings.model_validate(settings | {"stages": (stage | {"expansion": (50, 100)},)})
    with pytest.raises(ValidationError, match="'basic' or 'bottleneck'"):
        ResNetSettings.model_validate(settings | {"stages": (stage,), "block": "residual"})
