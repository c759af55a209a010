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
    with pytest.raises(UnknownNameError, match="Known: fp32, w8a8"):
        precision("w4a4")


def test_activation_bits_follow_the_weight_unless_chosen():
    assert site_precision({"s.w_bits": 8}, "s").name == "w8a8"
    assert site_precision({"s.w_bits": 32, "s.a_bits": 32}, "s").name == "fp32"
    assert site_precision({}, "s").name == "fp32"
    with pytest.raises(UnknownNameError, match="w8a32"):
        site_precision({"s.w_bits": 8, "s.a_bits": 32}, "s")
