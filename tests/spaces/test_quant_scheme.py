from __future__ import annotations

import pytest

from spaces import Granularity, QuantScheme, Symmetry, precision
from spaces.errors import ConfigError, UnknownNameError
from spaces.quant_scheme import S8_WEIGHT, U8_ACTIVATION, LayerPrecision, bits_of, site_precision


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
