from __future__ import annotations

from dataclasses import replace

import pytest

from spaces import ConfigError, DeviceCapabilities, Operator, SpaceError, UnknownNameError
from spaces.registration import parse_registration, register_space

BOTH = DeviceCapabilities("avx2", 1, 1, frozenset(Operator), frozenset({"fp32", "w8a8"}))
FLOAT = DeviceCapabilities("avx2", 1, 1, frozenset(Operator), frozenset({"fp32"}))


def test_registered_space_keeps_only_what_was_asked_for():
    text = "base: mobilenetv3_digits\nschemes: [w8a8]\nchoices:\n  stage*.kernel: [3]\n"
    space = register_space(parse_registration(text), "edge", BOTH)
    assert space.name == "mobilenetv3_digits@edge"
    assert {d.choices for d in space.dimensions if d.name.endswith("kernel")} == {(3,)}
    assert {d.choices for d in space.dimensions if d.kind == "w_bits"} == {(8,)}


@pytest.mark.parametrize("choices", ["{}", "{'*.w_bits': [32]}"])
def test_a_device_without_a_needed_operator_gets_no_space(choices):
    lacking = replace(FLOAT, operators=FLOAT.operators - {Operator.DEPTHWISE_CONV})
    registration = parse_registration(f"base: mobilenetv3_digits\nchoices: {choices}")
    with pytest.raises(SpaceError, match="needs depthwise_conv"):
        register_space(registration, "edge", lacking)


@pytest.mark.parametrize("bits", ["'*.w_bits'", "head.w_bits"])
def test_schemes_and_choices_both_apply(bits):
    text = f"base: mobilenetv3_digits\nschemes: [fp32, w8a8]\nchoices: {{{bits}: [8]}}"
    space = register_space(parse_registration(text), "edge", BOTH)
    assert space.dimensions[space.position("head.w_bits")].choices == (8,)
    with pytest.raises(SpaceError, match=r"w_bits: 'choices' allows \(8,\), 'schemes' .*\(32,\)"):
        register_space(parse_registration(text.replace("fp32, w8a8", "fp32")), "edge", BOTH)
    with pytest.raises(SpaceError, match="w_bits = 4 is not allowed; allowed: 8, 32"):
        register_space(parse_registration(text.replace("[8]", "[4]")), "edge", BOTH)


def test_without_schemes_the_device_decides():
    space = register_space(parse_registration("base: mobilenetv3_digits"), "edge", FLOAT)
    assert {d.choices for d in space.dimensions if d.kind == "w_bits"} == {(32,)}


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("base: mobilenetv3_digits\nschemes: [w8a8]", SpaceError, "does not execute w8a8"),
        ("base: mobilenetv3_digits\nschemes: [w5a5]", UnknownNameError, "w5a5"),
        (
            "base: mobilenetv3_digits\nchoices: {head.w_bits: [8, 32]}",
            SpaceError,
            "larger than device 'edge' allows: head.w_bits",
        ),
        ("base: mobilenet", UnknownNameError, "Known: .*mobilenetv3_digits"),
        ("bases: mobilenetv3_digits", ConfigError, "Did you mean 'base'"),
        ("base: [", ConfigError, "not valid YAML"),
        ("- 1", ConfigError, "must be a mapping"),
        ("base: mobilenetv3_digits\nchoices: {resolution: []}", ConfigError, "at least 1 item"),
    ],
)
def test_bad_registrations_say_what_is_allowed(text, error, message):
    with pytest.raises(error, match=message):
        register_space(parse_registration(text), "edge", FLOAT)
