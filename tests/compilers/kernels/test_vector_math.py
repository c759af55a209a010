"""Accuracy of the vector functions on every instruction set of this machine, in child processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from compilers.targets import host_isas

ROOT = Path(__file__).parents[3]
CHECKS = Path(__file__).parent / "vector_math_checks.py"


def errors(isa: str) -> str:
    """What the child prints: function -> largest errors and values at `SPECIAL` arguments."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(CHECKS), isa],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, f"status {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def found() -> list[str]:
    """Of the instruction sets with the widest and the narrowest vectors."""
    isas = host_isas()
    return [errors(isa) for isa in dict.fromkeys((isas[0], isas[-1]))]


def test_errors_stay_below_a_millionth_and_the_limits_are_reached(found: list[str]) -> None:
    functions = json.loads(found[0])
    assert all(errors["relative"] < 1e-6 for errors in functions.values()), functions
    assert functions["gelu"]["scaled"] < 4e-7
    assert functions["silu"]["scaled"] < 4e-7
    # Arguments -inf, -1e30, -1000, -100, -10, 0, 10, 100.
    assert functions["erf"]["special"] == [-1, -1, -1, -1, -1, 0, 1, 1]
    assert functions["gelu"]["special"][1:] == [0, 0, 0, 0, 0, 10, 100]
    assert 0 < functions["exp2"]["special"][0] < 2e-38
    assert 0 < functions["sigmoid"]["special"][0] < 2e-38
    assert functions["sigmoid"]["special"][5] == 0.5


def test_all_instruction_sets_give_the_same_values(found: list[str]) -> None:
    assert len(set(found)) == 1
