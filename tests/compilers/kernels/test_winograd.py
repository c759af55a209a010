"""Which convolutions take minimal filtering, and that its transforms give a convolution."""

from __future__ import annotations

import numpy as np
import pytest

from compilers.kernels import Conv
from compilers.kernels.winograd import saves_products, transform_weight

_B = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
_A = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])


def test_transformed_weights_times_transformed_pixels_are_a_convolution() -> None:
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((20, 5, 3, 3)).astype(np.float32)
    pixels = rng.standard_normal((5, 4, 4))
    packed = transform_weight(weight, 16)
    assert packed.shape == (16, 2, 5, 16)
    matrices = packed.transpose(0, 1, 3, 2).reshape(4, 4, 32, 5)
    assert not matrices[:, :, 20:].any()
    products = np.einsum("ijoc,cij->oij", matrices[:, :, :20], _B @ pixels @ _B.T)
    found = _A @ products @ _A.T
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (3, 3), axis=(1, 2))
    assert np.allclose(found, np.einsum("cijab,ocab->oij", windows, weight), atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (Conv(56, 56, 64, 64, 3, 1), True),
        (Conv(14, 14, 32, 48, 3, 1, padding=0), True),
        (Conv(56, 56, 64, 64, 3, 2), False),
        (Conv(56, 56, 64, 64, 5, 1), False),
        (Conv(56, 56, 64, 64, 3, 1, input_dtype="uint8"), False),
        (Conv(56, 56, 16, 64, 3, 1), False),
        # Half of every tile would be lost, and the weights are read faster than multiplied.
        (Conv(1, 9, 64, 64, 3, 1), False),
        (Conv(7, 7, 512, 512, 3, 1), False),
    ],
)
def test_minimal_filtering_is_for_large_float_windows_of_three(
    kernel: Conv, expected: bool
) -> None:
    assert saves_products(kernel) == expected
