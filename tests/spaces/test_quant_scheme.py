from __future__ import annotations

import pytest

from spaces import Granularity, QuantScheme, Symmetry, precision
from spaces.errors import ConfigError, UnknownNameError
from spaces.quant_scheme import (
    FORM_DIMENSIONS,
    PRECISIONS,
    S8_WEIGHT,
    U8_ACTIVATION,
    LayerPrecision,
    bits_of,
    site_precision,
)


@pytest.mark.parametrize(
    ("bits", "symmetry", "signed", "bounds"),
    [
        (8, Symmetry.SYMMETRIC, True, (-127, 127)),
        (8, Symmetry.ASYMMETRIC, True, (-128, 127)),
        (8, Symmetry.ASYMMETRIC, False, (0, 255)),
        (2, Symmetry.SYMMETRIC, True, (-1, 1)),
        (4, Symmetry.ASYMMETRIC, False, (0, 15)),
    ],
)
def test_integer_range(bits, symmetry, signed, bounds):
    scheme = QuantScheme(bits, Granularity.PER_TENSOR, symmetry, signed)
    assert (scheme.qmin, scheme.qmax) == bounds
    assert QuantScheme.from_json(scheme.to_json()) == scheme


def test_impossible_schemes_are_refused():
    with pytest.raises(ConfigError, match="2 to 8"):
        QuantScheme(9, Granularity.PER_TENSOR, Symmetry.SYMMETRIC, True)
    with pytest.raises(ConfigError, match="narrower"):
        QuantScheme(8, Granularity.PER_TENSOR, Symmetry.SYMMETRIC, True, executed_bits=4)
    with pytest.raises(ConfigError, match="group_size"):
        QuantScheme(4, Granularity.PER_GROUP, Symmetry.SYMMETRIC, True)


def test_names_of_precisions():
    assert precision("w8a8").weight == S8_WEIGHT
    assert bits_of("fp32") == 32
    assert LayerPrecision(None, U8_ACTIVATION).name == "w32a8"
    assert LayerPrecision.from_json(precision("w8a8").to_json()) == precision("w8a8")
    with pytest.raises(UnknownNameError, match=r"Did you mean 'w4a8'.*Known: fp32, w2a8, w3a8"):
        precision("w4a4")


@pytest.mark.parametrize("bits", range(2, 9))
def test_narrow_weights_are_stored_in_their_bits_and_executed_in_eight(bits):
    found = precision(f"w{bits}a8")
    assert found.weight is not None
    assert (found.weight.bits, found.weight.executed_bits) == (bits, 8)
    assert found.activation == U8_ACTIVATION
    assert (found.integer, found.weight_only) == (True, False)
    assert bits_of(found.name) == bits
    assert LayerPrecision.from_json(found.to_json()) == found


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group", [32, 64, 128])
def test_weight_only_precisions_execute_in_float(bits, group):
    found = precision(f"w{bits}a32g{group}")
    assert found.weight is not None
    assert (found.weight.bits, found.weight.executed_bits) == (bits, 32)
    assert found.weight.group_size == group
    assert (found.integer, found.weight_only) == (False, True)
    with pytest.raises(UnknownNameError, match="weight bits choose"):
        bits_of(found.name)


def test_activation_bits_follow_the_weight_unless_chosen():
    assert site_precision({"s.w_bits": 8}, "s").name == "w8a8"
    assert site_precision({"s.w_bits": 32, "s.a_bits": 32}, "s").name == "fp32"
    assert site_precision({}, "s").name == "fp32"
    assert site_precision({"s.w_bits": 3}, "s").name == "w3a8"
    assert site_precision({"s.w_bits": 8, "s.a_bits": 32}, "s").name == "w8a32g64"
    grouped = {"s.w_bits": 4, "s.a_bits": 32, "s.granularity": "per_group128"}
    assert site_precision(grouped, "s").name == "w4a32g128"
    with pytest.raises(UnknownNameError, match="w3a32g64"):
        site_precision({"s.w_bits": 3, "s.a_bits": 32}, "s")
    with pytest.raises(UnknownNameError, match="w32a8"):
        site_precision({"s.a_bits": 8}, "s")


FORMS = [
    (granularity, weight, activation, nonnegative)
    for granularity in ("per_tensor", "per_channel", "per_group32", "per_group64")
    for weight in Symmetry
    for activation in Symmetry
    for nonnegative in (False, True)
]


def values(site: str, bits: tuple[int, int], form: tuple[str, str, str]) -> dict[str, int | str]:
    return {f"{site}.w_bits": bits[0], f"{site}.a_bits": bits[1]} | dict(
        zip(FORM_DIMENSIONS, form, strict=True)
    )


def test_every_form_at_every_bits_has_a_name_and_a_key_of_its_own():
    found = {
        site_precision(values("s", (w, a), form), "s", nonnegative=nonnegative)
        for w in range(2, 9)
        for a in range(2, 9)
        for *form, nonnegative in FORMS
    }
    # The sign of an input matters to symmetric integers alone.
    assert len(found) == 7 * 7 * 4 * 2 * 3
    everything = found | set(PRECISIONS.values())
    assert len({p.name for p in everything}) == len(everything)
    assert len({p.weight.key for p in found}) == 7 * 4 * 2
    assert len({p.activation.key for p in found}) == 7 * 3
    assert all(LayerPrecision.from_json(p.to_json()) == p for p in found)
    assert all(p.integer and p.weight.executed_bits == 8 for p in found)


def test_names_say_what_is_not_the_default():
    plain = site_precision(values("s", (4, 3), ("per_channel", "symmetric", "asymmetric")), "s")
    assert plain.name == "w4a3"
    other = values("s", (4, 4), ("per_tensor", "asymmetric", "symmetric"))
    assert site_precision(other, "s").name == "w4a4.tensor.w_asymmetric.a_symmetric"
    unsigned = site_precision(other, "s", nonnegative=True)
    assert unsigned.name == "w4a4.tensor.w_asymmetric.a_symmetric_unsigned"
    assert (unsigned.activation.qmin, unsigned.activation.qmax) == (0, 15)
    grouped = site_precision(values("s", (4, 8), ("per_group64", "symmetric", "asymmetric")), "s")
    assert grouped.name == "w4a8g64"


def test_a_form_that_is_not_chosen_is_the_one_that_devices_are_probed_for():
    for bits in range(2, 9):
        assert site_precision({"s.w_bits": bits, "s.a_bits": 8}, "s") == precision(f"w{bits}a8")
        assert site_precision({"s.w_bits": bits}, "s") == precision(f"w{bits}a8")
    form = dict(zip(FORM_DIMENSIONS, ("per_tensor", "symmetric", "asymmetric"), strict=True))
    assert site_precision({"s.w_bits": 8, **form}, "s").name == "w8a8.tensor"
    assert site_precision({"s.w_bits": 32, "s.a_bits": 4, **form}, "s").name == "fp32"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight.granularity": "per_group"}, "per_group64"),
        ({"weight.granularity": "per_row"}, "per_row.*per_tensor"),
        ({"weight.symmetry": "skewed"}, "skewed.*symmetric, asymmetric"),
        ({"s.w_bits": 9}, "9; allowed: 2 to 8"),
        ({"s.a_bits": 1}, "1; allowed: 2 to 8"),
    ],
)
def test_forms_and_bits_that_do_not_exist_are_refused(change, message):
    given = values("s", (4, 4), ("per_tensor", "symmetric", "symmetric")) | change
    with pytest.raises(ConfigError, match=message):
        site_precision(given, "s")


def test_weights_have_signs_and_activations_one_scale():
    with pytest.raises(ConfigError, match=r"u8\.per_tensor\.asymmetric"):
        LayerPrecision(U8_ACTIVATION, U8_ACTIVATION)
    with pytest.raises(ConfigError, match="per_channel"):
        LayerPrecision(S8_WEIGHT, S8_WEIGHT)
