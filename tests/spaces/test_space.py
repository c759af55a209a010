from __future__ import annotations

import numpy as np
import pytest

from spaces import (
    DeviceCapabilities,
    Operator,
    SearchSpace,
    SpaceError,
    UnknownNameError,
    get_space,
    precision,
)
from spaces.errors import ConfigError
from spaces.population import sample


def capabilities(*schemes: str, operators=tuple(Operator)) -> DeviceCapabilities:
    return DeviceCapabilities("avx2", 1, 1, frozenset(operators), frozenset(schemes))


def test_space_has_at_least_10_to_the_12_configs(space):
    assert space.log10_size >= 12
    assert {str(d.kind) for d in space.dimensions} >= {
        "resolution", "depth", "width", "expansion", "kernel", "squeeze_excite", "w_bits",
    }  # fmt: skip


def test_config_round_trips_and_keeps_its_key_in_a_restriction(space):
    restricted = space.restrict(choices={"stage*.kernel": [5], "resolution": [24, 32]})
    for row in sample(restricted, 50, np.random.default_rng(0)):
        config = restricted.from_indices(row)
        base = space.config(config.to_json())
        assert base.key == config.key
        assert space.layer_specs(base) == restricted.layer_specs(config)
        assert restricted.contains(base)
    assert not restricted.contains(space.min_config())


def test_restrict_removes_what_a_device_does_not_execute(space):
    fp32_only = space.restrict(capabilities("fp32"))
    assert all(d.choices == (32,) for d in fp32_only.dimensions if d.kind == "w_bits")
    without_se = space.restrict(
        capabilities("fp32", "w8a8", operators=set(Operator) - {Operator.SQUEEZE_EXCITE})
    )
    assert all(d.choices == (0,) for d in without_se.dimensions if d.name.endswith(".se"))
    assert space.unsupported(capabilities("fp32", "w8a8")) == {}
    assert space.unsupported(capabilities("fp32"))["head.w_bits"] == (8,)
    # Weight-only precisions say nothing about 8 weight bits on a quantised input.
    assert space.unsupported(capabilities("fp32", "w8a32g64"))["head.w_bits"] == (8,)


def test_narrow_weights_are_choices_like_any_other(space):
    settings = space.to_json()["settings"] | {"schemes": ["fp32", "w3a8", "w4a8", "w8a8"]}
    wide = SearchSpace.from_json({**space.to_json(), "settings": settings, "choices": None})
    assert wide.dimensions[wide.position("head.w_bits")].choices == (3, 4, 8, 32)
    left = wide.restrict(capabilities("fp32", "w4a8"))
    assert left.dimensions[left.position("head.w_bits")].choices == (4, 32)
    config = left.config({**left.max_config(), "head.w_bits": 4})
    head = next(spec for spec in left.layer_specs(config) if spec.site == "head")
    assert head.precision == precision("w4a8")


@pytest.mark.parametrize(
    "missing", [Operator.CONV, Operator.DEPTHWISE_CONV, Operator.GLOBAL_POOL, Operator.LINEAR]
)
def test_a_device_without_an_operator_of_every_subnet_has_no_space(space, missing):
    lacking = capabilities("fp32", "w8a8", operators=set(Operator) - {missing})
    for ask in (space.restrict, space.unsupported):
        with pytest.raises(SpaceError, match=rf"every subnet .* needs {missing}, .* executes: "):
            ask(lacking)


def test_an_operator_that_a_restriction_has_fixed_is_needed_by_every_subnet(space):
    fixed = space.restrict(choices={"*.se": [1]})
    lacking = capabilities("fp32", operators=set(Operator) - {Operator.SQUEEZE_EXCITE})
    assert fixed.unsupported(lacking)["stage1.block0.se"] == (1,)
    with pytest.raises(SpaceError, match=r"nothing is left of .*\.se"):
        fixed.restrict(lacking)


def test_restrict_to_nothing_is_an_error_that_names_the_dimension(space):
    with pytest.raises(SpaceError, match=r"head\.w_bits"):
        space.restrict(choices={"head.w_bits": [8]}).restrict(capabilities("fp32"))
    with pytest.raises(SpaceError, match=r"kernel = 9 is not allowed; allowed: 3, 5"):
        space.restrict(choices={"stage1.block0.kernel": [9]})
    with pytest.raises(UnknownNameError, match="stage9"):
        space.restrict(choices={"stage9.*": [1]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution": 33}, "resolution = 33 is not allowed; allowed: 20, 24, 28, 32"),
        ({"resolutoin": 32}, "Did you mean 'resolution'"),
    ],
)
def test_config_refuses_what_is_not_in_the_space(space, change, message):
    with pytest.raises((SpaceError, UnknownNameError), match=message):
        space.config(space.max_config().to_json() | change)


def test_config_needs_every_active_value(space):
    values = space.max_config().to_json()
    del values["stage3.block2.kernel"]
    with pytest.raises(SpaceError, match=r"stage3.block2.kernel has no value"):
        space.config(values)
    assert space.config(values | {"stage3.depth": 1})["stage3.depth"] == 1


def test_indices_out_of_range_are_refused(space):
    row = np.zeros(len(space.names))
    row[0] = 99
    with pytest.raises(SpaceError, match="index 99 of resolution"):
        space.from_indices(row)
    with pytest.raises(SpaceError, match="3 indices"):
        space.from_indices([0, 1, 2])


def test_json_round_trip_keeps_the_key_and_restrictions_change_it(space):
    restricted = space.restrict(choices={"resolution": [32]})
    assert SearchSpace.from_json(restricted.to_json()).key == restricted.key != space.key


def test_unknown_family_and_settings_are_refused(space):
    data = space.to_json()
    with pytest.raises(UnknownNameError, match="mobilenetv3"):
        SearchSpace.from_json(data | {"family": "mobilenetv4"})
    with pytest.raises(ConfigError, match="Did you mean 'resolution'"):
        SearchSpace.from_json(
            data | {"settings": {**data["settings"], "resolutions": [32]}, "choices": {}}
        )
    with pytest.raises(ConfigError, match="multiples of 8"):
        SearchSpace.from_json(data | {"settings": {**data["settings"], "head": [100]}})
    with pytest.raises(ConfigError, match="w7a7"):
        SearchSpace.from_json(data | {"settings": {**data["settings"], "schemes": ["w7a7"]}})
    with pytest.raises(UnknownNameError, match="mobilenetv3_digits"):
        get_space("mobilenetv3_digit")


def test_a_device_keeps_the_bits_and_forms_that_it_executes(elastic):
    left = elastic.restrict(capabilities("fp32", "w4a8", "w8a8"))
    choices = {d.name: d.choices for d in left.dimensions}
    assert choices["head.w_bits"] == (4, 8, 32)
    assert choices["head.a_bits"] == (8,)
    assert choices["weight.granularity"] == ("per_channel",)
    assert choices["weight.symmetry"] == ("symmetric",)
    assert choices["activation.symmetry"] == ("asymmetric",)
    for row in sample(left, 20, np.random.default_rng(0)):
        names = {s.precision.name for s in left.layer_specs(left.from_indices(row))}
        assert names <= {"fp32", "w4a8", "w8a8", "w32a8"}
        assert elastic.config(left.from_indices(row)).key == left.from_indices(row).key
    floating = elastic.restrict(capabilities("fp32"))
    assert {s.precision.name for s in floating.layer_specs(floating.max_config())} == {"fp32"}
    with pytest.raises(SpaceError, match=r"nothing is left of weight\.granularity"):
        elastic.restrict(choices={"weight.granularity": ["per_tensor"]}).restrict(
            capabilities("fp32", "w8a8")
        )
