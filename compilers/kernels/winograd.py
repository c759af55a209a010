"""Minimal filtering F(2x2, 3x3) for 3x3 convolutions of stride 1 (Winograd; Lavin and Gray, 2016).

Each 2x2 tile of output pixels comes from a 4x4 tile of input pixels. Both are transformed, so that
the convolution becomes 16 element-wise products, summed over channels: 16 matrix products that
multiply 2.25 times less. Transforms only add and subtract; the error is that of a few more sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from compilers.kernels.packing import pack_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from compilers.kernels.conv import Conv

IN, OUT = 4, 2
"""Pixels of one side of a tile of the input, and of the output."""

PRODUCTS = IN * IN
"""Matrix products: one for each place of an input tile."""

_MOST_WEIGHT_BYTES = 8 << 20
"""With more, reading the weights takes longer than multiplying, and these are 16/9 as many."""

_FEWEST_CHANNELS = 32
"""With fewer, on either side, the transforms outweigh the products that are saved."""


def saves_products(kernel: Conv) -> bool:
    """Whether a convolution is to be computed this way."""
    fits = kernel.kernel == 3 and kernel.stride == 1 and kernel.border <= 1
    floats = kernel.input_dtype == "float32" and kernel.input_layout == "nhwc"
    tiles = -(-kernel.out_height // OUT) * -(-kernel.out_width // OUT)
    fewer = 1.5 * PRODUCTS * tiles <= 9 * kernel.out_height * kernel.out_width
    channels = min(kernel.in_channels, kernel.out_channels) >= _FEWEST_CHANNELS
    near = 4 * PRODUCTS * kernel.in_channels * kernel.out_channels <= _MOST_WEIGHT_BYTES
    return fits and floats and fewer and channels and near


def transform_weight(weight: NDArray[np.float32], lanes: int) -> NDArray[np.float32]:
    """[O, I, 3, 3] -> [16, ceil(O / lanes), I, lanes]: G g G^T, then packed as for a product."""
    g = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float64)
    transformed = np.einsum("ia,ocab,jb->ijoc", g, weight.astype(np.float64), g)
    matrices = transformed.astype(np.float32).reshape(PRODUCTS, *weight.shape[:2])
    return np.stack([pack_matrix(matrix, lanes) for matrix in matrices])
