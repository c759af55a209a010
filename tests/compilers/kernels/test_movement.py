from __future__ import annotations

import pytest

from compilers.errors import KernelError
from compilers.kernels import Binary, Concat, Copy, Embedding
from compilers.targets import host_isas
from tests.compilers.kernels.children import run_checks


@pytest.mark.slow
@pytest.mark.parametrize("isa", dict.fromkeys((host_isas()[0], host_isas()[-1])))
def test_outputs_match_numpy_and_stay_in_bounds(isa: str) -> None:
    result = run_checks("movement_checks.py", isa)
    assert result["failures"] == []
    assert result["cases"] > 40


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Copy((4, 5), 2, 5, (2, 5), (5, 1), 11), "outside a tensor"),
        (lambda: Copy((4, 5), 2, 5, (2, 5), (-5, 1), 5), "outside a tensor"),
        (lambda: Copy((4, 5), 2, 5, (2, 4), (5, 1)), r"into 2 x 5"),
        (lambda: Concat((2, 0), 5), ">= 1"),
        (lambda: Concat((2, 3), 5, axis=2), "axis 2"),
        (lambda: Embedding(4, 0, 8), ">= 1"),
        (lambda: Binary(2, 8, broadcast=True, other_dtype="uint8"), "float32"),
        (lambda: Binary(2, 8, combine="divide"), "divide"),
    ],
)
def test_what_cannot_be_is_an_error(make, message: str) -> None:
    with pytest.raises(KernelError, match=message):
        make()
