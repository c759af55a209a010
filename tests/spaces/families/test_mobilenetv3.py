from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from spaces import FP32, ConfigError, LayerSpec, Operator, SearchSpace, get_space
from spaces.population import sample
from tests.supernet.tiny_mobilenet import tiny_mobilenet_space

SPACE = get_space("mobilenetv3_digits")


def test_layers_fit_together():
    """Every layer reads what the one before writes; spatial sizes follow stride and padding."""
    for row in sample(SPACE, 200, np.random.default_rng(1)):
        layers = SPACE.layer_specs(SPACE.from_indices(row))
        assert len({layer.site for layer in layers}) == len(layers)
        for before, after in pairwise(layers):
            assert before.out_channels == after.in_channels
            assert before.out_size == after.in_size
        for layer in layers:
            if layer.operator in (Operator.CONV, Operator.DEPTHWISE_CONV):
                size = (layer.in_size + 2 * layer.padding - layer.kernel) // layer.stride + 1
                assert layer.out_size == size
            if layer.residual:
                block = layer.site.rsplit(".", 1)[0]
                first = next(x for x in layers if x.site.startswith(f"{block}."))
                assert (first.in_channels, first.in_size) == (layer.out_channels, layer.out_size)


def test_values_reach_the_layers():
    values = SPACE.max_config().to_json() | {
        "resolution": 24, "stage2.depth": 1, "stage2.block0.expansion": 3,
        "stage2.block0.kernel": 5, "stage2.block0.se": 1, "stage2.block0.project.w_bits": 8,
    }  # fmt: skip
    layers = {layer.site: layer for layer in SPACE.layer_specs(SPACE.config(values))}
    assert layers["stem"].in_size == 24
    assert "stage2.block1.expand" not in layers
    assert layers["stage2.block0.depthwise"].kernel == 5
    assert layers["stage2.block0.expand"].out_channels == 24 * 3
    assert layers["stage2.block0.project"].precision.name == "w8a8"
    # SE computes in float32 but reads what the integer projection reads.
    assert layers["stage2.block0.se"].precision.name == "w32a8"
    assert layers["stem"].precision == FP32


def test_layer_specs_survive_json():
    for layer in SPACE.layer_specs(SPACE.max_config()) + SPACE.layer_specs(SPACE.min_config()):
        assert LayerSpec.from_json(layer.to_json()) == layer


def test_an_expansion_of_one_alone_leaves_out_the_expand_layers():
    space = tiny_mobilenet_space()
    sites = [layer.site for layer in space.layer_specs(space.max_config())]
    first = [f"stage1.block{b}.{layer}" for b in (0, 1) for layer in ("depthwise", "se", "project")]
    assert sites[1:7] == first
    assert "stage2.block0.expand" in sites
    named = [d.name for d in space.dimensions if d.name.endswith(".w_bits")]
    assert "stage1.block0.depthwise.w_bits" in named
    assert "stage1.block0.expand.w_bits" not in named


def test_an_expand_layer_is_not_elastic():
    settings = SPACE.to_json()["settings"]
    settings["stages"][0]["expansion"] = [1, 2]
    with pytest.raises(ConfigError, match=r"expansion \[1, 2\].*1 alone"):
        SearchSpace.from_json({**SPACE.to_json(), "settings": settings})
