from __future__ import annotations

import numpy as np
import pytest

from compilers.runtime import BundleRuntimeError, check_cpu, compare, read_input

SHAPE = [1, 1, 4, 4]


@pytest.mark.parametrize("shape", [(3, 1, 4, 4), (1, 4, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_inputs_become_float32_batches(tmp_path, shape, dtype):
    x = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    found = read_input(tmp_path / "x.npy", SHAPE)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.ravel(), x.ravel())
    assert found.shape[1:] == (1, 4, 4)


@pytest.mark.parametrize(
    "x", [np.zeros((2, 1, 4, 5)), np.zeros((0, 1, 4, 4)), np.zeros(16), np.array(["a"] * 16)]
)
def test_inputs_that_do_not_fit(tmp_path, x):
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(BundleRuntimeError, match=r"expected float32 \[n, 1, 4, 4\]"):
        read_input(tmp_path / "x.npy", SHAPE)


def test_pickled_and_foreign_inputs_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(BundleRuntimeError, match="not a readable"):
        read_input(tmp_path / "x.npy", SHAPE)
    (tmp_path / "x.npy").write_text("text")
    with pytest.raises(BundleRuntimeError, match="not a readable"):
        read_input(tmp_path / "x.npy", SHAPE)


def test_the_processor_is_checked():
    check_cpu({"cpu_flags": []})
    with pytest.raises(BundleRuntimeError, match="avx9000"):
        check_cpu({"cpu_flags": ["avx9000"], "isa": "new"})


def test_outputs_are_compared_relative_to_the_largest():
    expected = np.array([[0.0, 100.0]], np.float32)
    assert compare(expected + 0.001, expected, 1e-4) == pytest.approx(1e-5, rel=0.1)
    for wrong in (expected + 0.1, expected * np.nan, expected[:, :1]):
        with pytest.raises(BundleRuntimeError):
            compare(wrong, expected, 1e-4)
