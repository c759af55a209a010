"""Packed weights: which element lies where."""

from __future__ import annotations

import numpy as np
import pytest

from compilers.errors import KernelError
from compilers.kernels.nibbles import held_weight, pack_nibbles
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


@pytest.mark.parametrize("shape", [(3, 5, 16), (2, 64), (1, 8)])
def test_two_rows_of_nibbles_share_their_bytes(shape: tuple[int, ...]) -> None:
    weight = np.random.default_rng(0).integers(-8, 8, shape).astype(np.int8)
    rows = weight.reshape(-1, shape[-1])
    packed = pack_nibbles(weight)
    assert packed.shape == (-(-len(rows) // 2), shape[-1])
    for i, row in enumerate(rows):
        half = packed[i // 2] >> 4 if i % 2 else (packed[i // 2] << 4).view(np.int8) >> 4
        assert np.array_equal(half, row)
    assert held_weight(weight, 8) is weight
    with pytest.raises(KernelError, match="do not fit 4 bits"):
        pack_nibbles(weight + np.int8(8))
