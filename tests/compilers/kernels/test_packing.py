"""Packed weights: which element lies where."""

from __future__ import annotations

import numpy as np
import pytest

from compilers.errors import KernelError
from compilers.kernels.packing import integer_bias, pack_matrix, pad_channels


@pytest.mark.parametrize(("n", "k", "lanes", "group"), [(24, 12, 16, 1), (10, 8, 8, 4)])
def test_pack_matrix_places_every_weight(n: int, k: int, lanes: int, group: int) -> None:
    weight = np.arange(1, n * k + 1).reshape(n, k)
    packed = pack_matrix(weight, lanes, group)
    assert packed.shape == (-(-n // lanes), k // group, lanes * group)
    for o in range(n):
        for i in range(k):
            place = (o // lanes, i // group, (o % lanes) * group + i % group)
            assert packed[place] == weight[o, i]
    assert (packed != 0).sum() == n * k


def test_pad_channels_adds_zeros() -> None:
    assert pad_channels(np.ones(10, np.float32), 16).tolist() == [1.0] * 10 + [0.0] * 6


def test_integer_bias_holds_the_zero_point() -> None:
    weight = np.array([[1, -2], [127, 127]], np.int8)
    start = integer_bias(weight, np.array([10, 20], np.int32), 200)
    assert start.tolist() == [10 + 200, 20 - 200 * 254]
    with pytest.raises(KernelError, match="32 bits"):
        integer_bias(weight, np.array([0, -(2**31)], np.int32), 200)
