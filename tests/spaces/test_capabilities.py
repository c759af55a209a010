from __future__ import annotations

import pytest

from spaces import DeviceCapabilities, Dimension, DimensionKind, Operator
from spaces.quant_scheme import ACTIVATION_SYMMETRY, WEIGHT_GRANULARITY, WEIGHT_SYMMETRY

INTEGER = ("fp32", "w4a8", "w8a8")
WEIGHT_ONLY = ("fp32", "w4a32g64")


def capabilities(schemes: tuple[str, ...]) -> DeviceCapabilities:
    return DeviceCapabilities("avx2", 1, 1, frozenset(Operator), frozenset(schemes))


@pytest.mark.parametrize(
    ("kind", "name", "choices", "executed"),
    [
        ("w_bits", "s.w_bits", (3, 4, 8, 32), {INTEGER: (4, 8, 32), WEIGHT_ONLY: (32,)}),
        ("w_bits", "s.w_bits", (3, 8), {WEIGHT_ONLY: ()}),
        ("a_bits", "s.a_bits", (2, 8), {INTEGER: (8,), WEIGHT_ONLY: (2,)}),
        ("a_bits", "s.a_bits", (8, 32), {INTEGER: (8, 32), WEIGHT_ONLY: (32,)}),
        ("a_bits", "s.a_bits", (2, 4), {INTEGER: ()}),
        ("granularity", WEIGHT_GRANULARITY, ("per_tensor", "per_channel", "per_group64"),
         {INTEGER: ("per_channel",), WEIGHT_ONLY: ("per_tensor",)}),
        ("granularity", "s.granularity", ("per_group32", "per_group64"),
         {WEIGHT_ONLY: ("per_group64",)}),
        ("symmetry", WEIGHT_SYMMETRY, ("symmetric", "asymmetric"), {INTEGER: ("symmetric",)}),
        ("symmetry", WEIGHT_SYMMETRY, ("asymmetric",), {INTEGER: ()}),
        ("symmetry", ACTIVATION_SYMMETRY, ("symmetric", "asymmetric"),
         {INTEGER: ("asymmetric",), WEIGHT_ONLY: ("symmetric",)}),
        ("kernel", "s.kernel", (3, 5), {INTEGER: (3, 5), WEIGHT_ONLY: (3, 5)}),
    ],
)  # fmt: skip
def test_choices_that_no_executed_precision_has_are_removed(kind, name, choices, executed):
    """Without integer layers the first choice stands for what says nothing."""
    dimension = Dimension(name, DimensionKind(kind), choices)
    for schemes, left in executed.items():
        assert capabilities(schemes).executed_choices(dimension) == left, schemes


def test_without_the_operator_that_a_choice_adds_the_choice_0_is_left():
    excite = Dimension("s.se", DimensionKind.SQUEEZE_EXCITE, (0, 1))
    lacking = frozenset(Operator) - {Operator.SQUEEZE_EXCITE}
    without = DeviceCapabilities("avx2", 1, 1, lacking, frozenset(INTEGER))
    assert without.executed_choices(excite) == (0,)
    assert without.executed_choices(Dimension("s.se", DimensionKind.SQUEEZE_EXCITE, (1,))) == ()
    assert capabilities(INTEGER).executed_choices(excite) == (0, 1)
