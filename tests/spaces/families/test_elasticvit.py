from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from spaces import (
    FP32,
    ConfigError,
    DeviceCapabilities,
    LayerSpec,
    Operator,
    SearchSpace,
    SpaceError,
    cost,
    get_space,
    layer_cost,
)
from spaces.dimension import DimensionKind
from spaces.families import make_family
from spaces.population import sample

NAMES = ("elasticvit_digits", "elasticvit_imagenet")
DIGITS = get_space("elasticvit_digits")


def macs(layers):
    return np.array([float(sum(layer_cost(layer).macs for layer in layers))])


@pytest.mark.parametrize("name", NAMES)
def test_layers_fit_together(name):
    """Every layer reads what the one before writes; spatial sizes follow stride and padding."""
    space = get_space(name)
    for row in sample(space, 60, np.random.default_rng(1)):
        layers = space.layer_specs(space.from_indices(row))
        assert len({layer.site for layer in layers}) == len(layers)
        for before, after in pairwise(layers):
            assert before.out_channels == after.in_channels
            assert before.out_size == after.in_size
        for layer in layers:
            if layer.operator in (Operator.CONV, Operator.DEPTHWISE_CONV):
                size = (layer.in_size + 2 * layer.padding - layer.kernel) // layer.stride + 1
                assert layer.out_size == size
            if layer.residual:
                block = layer.site.rpartition(".")[0]
                first = next(x for x in layers if x.site.rpartition(".")[0] == block)
                assert (first.in_channels, first.in_size) == (layer.out_channels, layer.out_size)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_remembered_per_slot_is_the_cost_of_the_layers(name):
    space = get_space(name)
    population = sample(space, 20, np.random.default_rng(2))
    found = space.slot_features(population, macs).sum(axis=(1, 2))
    exact = [cost(space.layer_specs(space.from_indices(row))).macs for row in population]
    assert found.tolist() == exact


def test_the_published_space_has_the_published_extremes():
    """37 MFLOPs and 3 GFLOPs (Tang et al. 2023)."""
    space = get_space("elasticvit_imagenet")
    smallest, largest = (
        cost(space.layer_specs(config)).macs for config in (space.min_config(), space.max_config())
    )
    assert 36e6 < smallest < 39e6
    assert 3.1e9 < largest < 3.3e9


def test_choices_of_a_stage_reach_all_its_blocks():
    values = DIGITS.max_config().to_json() | {
        "resolution": 28, "stem.width": 8, "stem.kernel": 5, "stage1.expansion": 3,
        "stage3.heads": 4, "stage3.depth": 2, "stage3.mlp_ratio": 3, "stage3.value_scale": 2,
        "stage3.block1.attention.qkv.w_bits": 8,
    }  # fmt: skip
    layers = {layer.site: layer for layer in DIGITS.layer_specs(DIGITS.config(values))}
    assert "stem.block1.expand" not in layers
    assert layers["stem.block1.depthwise"].kernel == 5
    assert layers["stage1.block1.expand"].out_channels == 24 * 3
    assert layers["stage3.entry.depthwise"].stride == 2
    assert "stage3.block2.attention.qkv" not in layers
    for j in range(2):
        block = f"stage3.block{j}"
        qkv, core = layers[f"{block}.attention.qkv"], layers[f"{block}.attention.core"]
        assert (qkv.in_channels, qkv.out_channels) == (64, 4 * (16 + 16 + 32))
        assert core.operator is Operator.ATTENTION
        assert (core.heads, core.head_channels, core.in_size) == (4, (16, 32), 4)
        assert core.precision == FP32
        assert layers[f"{block}.mlp.expand"].out_channels == 3 * 64
    assert layers["stage3.block1.attention.qkv"].precision.name == "w8a8"
    assert layers["stage3.block0.attention.qkv"].precision == FP32
    assert layers["head"].out_channels == 2 * 64


def with_layer_norm(space):
    data = space.to_json()
    return SearchSpace.from_json(data | {"settings": data["settings"] | {"norm": "layer"}})


def test_a_space_of_before_there_was_a_choice_keeps_its_key():
    data = DIGITS.to_json()
    assert "norm" not in data["settings"]
    settings = data["settings"] | {"norm": "batch"}
    assert SearchSpace.from_json(data | {"settings": settings}).key == DIGITS.key
    normed = with_layer_norm(DIGITS)
    assert normed.key != DIGITS.key
    assert normed.to_json()["settings"]["norm"] == "layer"


def test_layer_norm_comes_first_in_every_transformer_block():
    normed = with_layer_norm(DIGITS)
    config = DIGITS.max_config()
    layers = normed.layer_specs(normed.config(config))
    norms = [layer for layer in layers if layer.operator is Operator.LAYER_NORM]
    assert [layer for layer in layers if layer not in norms] == list(DIGITS.layer_specs(config))
    blocks = [f"stage{s}.block{b}" for s, b in ((2, 0), (2, 1), (3, 0), (3, 1), (3, 2))]
    sites = [f"{block}.{part}.norm" for block in blocks for part in ("attention", "mlp")]
    assert [layer.site for layer in norms] == sites
    for before, after in pairwise(layers):
        assert (before.out_channels, before.out_size) == (after.in_channels, after.in_size)
        assert after.operator is not Operator.LAYER_NORM or before.block != after.block
    assert all(layer.precision == FP32 for layer in norms)


def test_a_device_without_layer_norm_has_no_space_with_it():
    lacking = DeviceCapabilities(
        "avx2", 1, 1, frozenset(Operator) - {Operator.LAYER_NORM}, frozenset({"fp32", "w8a8"})
    )
    assert not DIGITS.unsupported(lacking)
    with pytest.raises(SpaceError, match=r"every subnet .* needs layer_norm"):
        with_layer_norm(DIGITS).restrict(lacking)


def test_kinds_say_what_a_dimension_varies():
    kinds = {d.name: d.kind for d in DIGITS.dimensions}
    assert kinds["stage1.width"] is DimensionKind.WIDTH
    assert kinds["stage2.heads"] is DimensionKind.HEADS
    assert kinds["stage2.mlp_ratio"] is DimensionKind.FFN
    assert kinds["stage2.depth"] is DimensionKind.DEPTH


def test_bits_of_skipped_blocks_do_not_count():
    values = DIGITS.min_config().to_json()
    skipped = DIGITS.config(values | {"stage3.block2.mlp.project.w_bits": 32})
    assert skipped == DIGITS.min_config()
    entry = DIGITS.config(values | {"stage3.entry.project.w_bits": 32})
    assert entry != DIGITS.min_config()


def test_layer_specs_survive_json():
    for layer in DIGITS.layer_specs(DIGITS.max_config()):
        data = layer.to_json()
        assert LayerSpec.from_json(data) == layer
        if not layer.heads:
            # Files of before there was attention.
            del data["heads"]
            assert LayerSpec.from_json(data) == layer


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("conv_stages", 0, "expansion"), [1, 2], "expansion must be at least 2"),
        (("transformer_stages", 0, "heads"), [], "heads"),
        (("transformer_stages", 0, "entry_expansion"), 1, "entry_expansion"),
        (("stem", "width"), [12], "multiples of 8"),
        (("schemes",), ["w9a9"], "w9a9"),
        (("transformer_stages", 0, "mlp"), [2], "mlp_ratio"),
        (("norm",), "group", "'batch' or 'layer'"),
    ],
)
def test_wrong_settings_are_named(path, value, message):
    settings = DIGITS.family.to_json()
    place = settings
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ConfigError, match=message):
        make_family("elasticvit", settings)
