"""Accuracy of the vector functions on every instruction set of this machine, in child processes."""

from __future__ import annotations

from typing import Any

import pytest

from compilers.targets import host_isas
from tests.compilers.kernels.children import run_checks

Found = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def found() -> Found:
    """Instruction set -> function -> errors, of the widest and the narrowest vectors."""
    isas = host_isas()
    return run_checks("vector_math_checks.py", *dict.fromkeys((isas[0], isas[-1])))


def test_errors_stay_below_a_millionth_and_the_limits_are_reached(found: Found) -> None:
    functions = found[host_isas()[0]]
    assert all(errors["relative"] < 1e-6 for errors in functions.values()), functions
    assert functions["gelu"]["scaled"] < 4e-7
    assert functions["silu"]["scaled"] < 4e-7
    # Arguments -inf, -1e30, -1000, -100, -10, 0, 10, 100.
    assert functions["erf"]["special"] == [-1, -1, -1, -1, -1, 0, 1, 1]
    assert functions["gelu"]["special"][1:] == [0, 0, 0, 0, 0, 10, 100]
    assert 0 < functions["exp2"]["special"][0] < 2e-38
    assert 0 < functions["sigmoid"]["special"][0] < 2e-38
    assert functions["sigmoid"]["special"][5] == 0.5


def test_all_instruction_sets_give_the_same_values(found: Found) -> None:
    first, *others = found.values()
    assert all(other == first for other in others)
