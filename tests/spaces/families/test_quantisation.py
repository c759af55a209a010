from __future__ import annotations

import pytest

from spaces import SearchSpace, Symmetry, get_space
from spaces.errors import ConfigError
from spaces.families import QuantSettings
from spaces.families.quantisation import FORM_READS, form_dimensions, layer_dimensions
from spaces.layer_spec import Operator

ELASTIC = {
    "w_bits": [8, 2, 4],
    "a_bits": [8, 3],
    "granularity": ["per_channel", "per_group16", "per_tensor", "per_group32"],
    "weight_symmetry": ["asymmetric", "symmetric"],
    "activation_symmetry": ["symmetric", "asymmetric"],
}


def elastic_space(**changes) -> SearchSpace:
    data = get_space("mobilenetv3_digits").to_json()
    settings = {k: v for k, v in data["settings"].items() if k != "schemes"} | ELASTIC | changes
    return SearchSpace.from_json(data | {"settings": settings, "choices": None})


def test_a_space_with_schemes_alone_is_the_one_it_always_was():
    space = get_space("mobilenetv3_digits")
    assert space.key == "3f695c22aa501c3a"
    assert space.max_config().key == "8a2df387bde88947"
    assert not {*ELASTIC, *FORM_READS} & {*space.to_json()["settings"], *space.names}
    assert space.to_json()["settings"]["schemes"] == ["fp32", "w8a8"]


def test_bits_are_dimensions_of_layers_and_the_form_of_the_config():
    settings = QuantSettings.model_validate(ELASTIC)
    bits = layer_dimensions(settings, "head")
    assert [(d.name, d.choices) for d in bits] == [
        ("head.w_bits", (2, 4, 8)),
        ("head.a_bits", (3, 8)),
    ]
    form = {d.name: d.choices for d in form_dimensions(settings)}
    assert tuple(form) == FORM_READS
    # From the coarsest to the finest: the last choices are the largest config's.
    assert form["weight.granularity"] == (
        "per_tensor", "per_channel", "per_group32", "per_group16",
    )  # fmt: skip
    assert form["weight.symmetry"] == form["activation.symmetry"] == tuple(map(str, Symmetry))
    only = QuantSettings(w_bits=(4, 32), weight_symmetry=(Symmetry.ASYMMETRIC,))
    assert [d.name for d in layer_dimensions(only, "head")] == ["head.w_bits"]
    assert [d.name for d in form_dimensions(only)] == ["weight.symmetry"]


def test_an_elastic_space_survives_json_and_its_choices_reach_the_layers():
    space = elastic_space()
    again = SearchSpace.from_json(space.to_json())
    assert again.key == space.key
    assert again.to_json() == space.to_json()
    values = space.max_config().to_json() | {
        "stage1.block0.project.w_bits": 2,
        "stage1.block0.project.a_bits": 3,
        "weight.granularity": "per_tensor",
        "weight.symmetry": "asymmetric",
        "activation.symmetry": "symmetric",
    }
    layers = {spec.site: spec for spec in space.layer_specs(space.config(values))}
    # What a rectified linear unit leaves is never negative.
    form = "tensor.w_asymmetric.a_symmetric"
    assert layers["stage1.block0.project"].precision.name == f"w2a3.{form}_unsigned"
    assert layers["stage1.block0.expand"].precision.name == f"w8a8.{form}"
    assert layers["classifier"].precision.name == f"w8a8.{form}"
    excite = layers["stage1.block0.se"]
    assert excite.operator is Operator.SQUEEZE_EXCITE
    assert excite.precision.activation == layers["stage1.block0.project"].precision.activation


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"a_bits": [4]}, "a_bits needs w_bits"),
        ({"w_bits": [4], "schemes": ["w8a8"]}, "exclude each other"),
        ({"w_bits": [4, 9]}, r"bits \[9\]; allowed: 2, 3, 4, 5, 6, 7, 8, 32"),
        ({"w_bits": [4], "a_bits": [32]}, r"bits \[32\]; allowed: 2, 3, 4, 5, 6, 7, 8"),
        ({"w_bits": [4], "granularity": ["per_group"]}, "per_group64"),
        ({"w_bits": [4], "weight_symmetry": ["odd"]}, "symmetric"),
        ({"w_bits": [], "schemes": ["w8a8"]}, "at least 1"),
        ({"wbits": [4]}, "Did you mean 'w_bits'"),
    ],
)
def test_settings_that_say_too_much_or_nothing_are_refused(settings, message):
    data = get_space("mobilenetv3_digits").to_json()
    base = {k: v for k, v in data["settings"].items() if k != "schemes"}
    with pytest.raises(ConfigError, match=message):
        SearchSpace.from_json(data | {"settings": base | settings, "choices": None})
