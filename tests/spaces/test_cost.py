from __future__ import annotations

import pytest

from spaces import W8A8, LayerSpec, Operator, cost, layer_cost, tensor_layout
from spaces.cost import Cost
from spaces.quant_scheme import (
    U8_ACTIVATION,
    LayerPrecision,
    QuantScheme,
    activation_scheme,
    precision,
    weight_scheme,
)


def test_conv_cost_by_hand():
    spec = LayerSpec("c", Operator.CONV, 16, 24, 8, 4, kernel=3, stride=2)
    found = layer_cost(spec)
    assert (found.macs, found.params) == (16 * 24 * 9 * 16, 16 * 24 * 9 + 24)
    assert found.bytes == 4 * found.params


def test_integer_depthwise_layout_by_hand():
    spec = LayerSpec(
        "d", Operator.DEPTHWISE_CONV, 48, 48, 8, 8, kernel=5, groups=48, precision=W8A8
    )
    assert tensor_layout(spec) == {
        "d.weight": ("int8", (48, 1, 5, 5)),
        "d.bias": ("int32", (48,)),
        "d.scale": ("float32", (48,)),
        "d.input_scale": ("float32", ()),
        "d.input_zero_point": ("int32", ()),
    }
    assert layer_cost(spec).bytes == 48 * 25 + 48 * 4 + 48 * 4 + 8
    assert layer_cost(spec).macs == 48 * 25 * 64


@pytest.mark.parametrize("bits", range(2, 8))
def test_narrow_weights_are_packed_and_cost_what_int8_costs_otherwise(bits):
    spec = LayerSpec("c", Operator.CONV, 5, 7, 8, 8, kernel=3, precision=precision(f"w{bits}a8"))
    wide = LayerSpec("c", Operator.CONV, 5, 7, 8, 8, kernel=3, precision=W8A8)
    packed = -(-bits * 5 * 7 * 9 // 8)
    assert tensor_layout(spec)["c.weight"] == ("uint8", (packed,))
    narrow, full = layer_cost(spec), layer_cost(wide)
    assert (narrow.macs, narrow.params) == (full.macs, full.params)
    assert full.bytes - narrow.bytes == 5 * 7 * 9 - packed


def test_weight_only_layout_by_hand():
    spec = LayerSpec("l", Operator.LINEAR, 200, 10, precision=precision("w4a32g64"))
    assert tensor_layout(spec) == {
        "l.weight": ("uint8", (1000,)),
        "l.bias": ("float32", (10,)),
        "l.scale": ("float32", (10, 4)),
    }
    assert layer_cost(spec).macs == 2000
    assert layer_cost(spec).params == 2010


@pytest.mark.parametrize("name", ["w4a8", "w4a32g32", "w4a32g128"])
def test_a_4_bit_layer_is_its_bits_and_scales(name):
    found = precision(name)
    spec = LayerSpec("l", Operator.LINEAR, 1024, 256, precision=found)
    scales = 256 * 1024 // (found.weight.group_size or 1024) * 4
    ideal = 1024 * 256 * 4 / 8 + scales
    assert ideal <= layer_cost(spec).bytes <= 1.02 * ideal


def test_squeeze_excite_runs_once_per_image():
    spec = LayerSpec(
        "s", Operator.SQUEEZE_EXCITE, 64, 64, 7, 7, hidden_channels=16,
        precision=LayerPrecision(None, U8_ACTIVATION),
    )  # fmt: skip
    assert layer_cost(spec).macs == 2 * 64 * 16
    assert layer_cost(spec).bytes == 4 * (2 * 64 * 16 + 16 + 64) + 8


def test_attention_by_hand():
    # 2 heads of 16 and 24 channels over 5 x 5 pixels.
    spec = LayerSpec("a", Operator.ATTENTION, 2 * (16 + 16 + 24), 48, 5, 5, kernel=3, heads=2)
    assert tensor_layout(spec) == {
        "a.depthwise.weight": ("float32", (48, 1, 3, 3)),
        "a.depthwise.bias": ("float32", (48,)),
        "a.position.bias": ("float32", (2, 5, 5)),
    }
    scores, sums = 2 * 25 * 25 * 16, 2 * 25 * 25 * 24
    assert layer_cost(spec).macs == scores + sums + 25 * 48 * 9
    assert layer_cost(spec).params == 48 * 9 + 48 + 2 * 5 * 5
    assert layer_cost(spec).bytes == 4 * layer_cost(spec).params


def test_layer_norm_by_hand():
    spec = LayerSpec("n", Operator.LAYER_NORM, 48, 48, 5, 5)
    assert tensor_layout(spec) == {"n.weight": ("float32", (48,)), "n.bias": ("float32", (48,))}
    assert layer_cost(spec) == Cost(macs=0, params=2 * 48, bytes=4 * 2 * 48)


def test_costs_add_up(space):
    layers = space.layer_specs(space.max_config())
    assert cost(layers).macs == sum(layer_cost(layer).macs for layer in layers)
    pool = next(layer for layer in layers if layer.operator is Operator.GLOBAL_POOL)
    assert layer_cost(pool).bytes == layer_cost(pool).macs == 0


def test_int8_subnet_is_about_a_quarter_of_the_bytes(space):
    largest = space.max_config().to_json()
    integer = {k: 8 if k.endswith("w_bits") else v for k, v in largest.items()} | {
        k: 0 for k in largest if k.endswith(".se")
    }
    floating = integer | {k: 32 for k in largest if k.endswith("w_bits")}
    sizes = [cost(space.layer_specs(space.config(v))).bytes for v in (integer, floating)]
    assert 0.25 < sizes[0] / sizes[1] < 0.33


def form(bits: int, granularity: str, symmetry: str, inputs: QuantScheme | None = U8_ACTIVATION):
    return LayerPrecision(weight_scheme(bits, granularity, symmetry), inputs)


def test_zero_points_of_asymmetric_weights_are_stored_per_channel():
    for granularity in ("per_tensor", "per_channel"):
        precision_ = form(4, granularity, "asymmetric", activation_scheme(3, "symmetric"))
        spec = LayerSpec("c", Operator.CONV, 5, 7, 8, 8, kernel=3, precision=precision_)
        assert tensor_layout(spec) == {
            "c.weight": ("uint8", (158,)),  # ceil(5 * 7 * 9 * 4 / 8)
            "c.bias": ("int32", (7,)),
            "c.scale": ("float32", (7,)),
            "c.weight_zero_point": ("int8", (7,)),
            "c.input_scale": ("float32", ()),
            "c.input_zero_point": ("int32", ()),
        }
        assert layer_cost(spec).bytes == 158 + 4 * 7 + 4 * 7 + 7 + 8
        assert layer_cost(spec).params == 5 * 7 * 9 + 7
        assert layer_cost(spec).macs == 5 * 7 * 9 * 64


def test_groups_of_inputs_store_a_scale_and_a_zero_point_each():
    spec = LayerSpec(
        "c", Operator.CONV, 20, 6, 8, 8, kernel=3, precision=form(8, "per_group8", "asymmetric")
    )
    assert tensor_layout(spec) == {
        "c.weight": ("int8", (6, 20, 3, 3)),
        "c.bias": ("float32", (6,)),
        "c.scale": ("float32", (6, 3)),
        "c.weight_zero_point": ("int8", (6, 3)),
        "c.input_scale": ("float32", ()),
        "c.input_zero_point": ("int32", ()),
    }
    depthwise = LayerSpec(
        "d", Operator.DEPTHWISE_CONV, 6, 6, 8, 8, 3, 1, 6,
        precision=form(8, "per_group8", "symmetric"),
    )  # fmt: skip
    assert tensor_layout(depthwise)["d.scale"] == ("float32", (6, 1))
