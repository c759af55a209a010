"""Pools and conversions, which have no weights."""

from __future__ import annotations

import numpy as np
from kernel_case import INPUT, OUTPUT, Case, draw, real, stored

from compilers.kernels import AvgPool, Dequantize, GlobalPool, MaxPool, Quantize, QuantizeImage
from compilers.kernels.base import LayerParams, QParams


def pooled(x: np.ndarray, kernel: MaxPool | AvgPool) -> np.ndarray:
    """The pool of every window clipped to the image, [pixels, channels]."""
    image = x.reshape(kernel.height, kernel.width, -1).astype(np.float64)
    size, step, border = kernel.kernel, kernel.stride, kernel.padding
    rows, columns = (
        [slice(max(0, i * step - border), i * step - border + size) for i in range(count)]
        for count in kernel.output_size
    )
    reduce = np.max if isinstance(kernel, MaxPool) else np.mean
    return np.stack([reduce(image[r, c], axis=(0, 1)) for r in rows for c in columns])


def other_case(
    kernel: GlobalPool | MaxPool | AvgPool | Quantize | QuantizeImage | Dequantize,
    rng: np.random.Generator,
) -> Case:
    x = draw(rng, kernel.input_shape, kernel.input_dtype)
    if isinstance(kernel, MaxPool | AvgPool):
        expected = pooled(x, kernel)
        exact = isinstance(kernel, MaxPool) or kernel.dtype == "uint8"
        if kernel.dtype == "uint8":
            expected = np.rint(expected)
        return Case(kernel, x, None, LayerParams(), expected, exact)
    value = real(x, INPUT)
    if isinstance(kernel, QuantizeImage):
        value = value[0].reshape(kernel.channels, -1).T
        value = np.pad(value, ((0, 0), (0, -kernel.channels % 4)))
    if isinstance(kernel, GlobalPool):
        value = value.mean(0, keepdims=True)
    expected = stored(value, kernel.output_dtype)
    return Case(kernel, x, None, LayerParams(input=INPUT, output=OUTPUT), expected)


def ties_case() -> Case:
    """Halves of a step, which round to even, and values far beyond the range."""
    halves = np.arange(-300, 300, dtype=np.float64) / 2
    steps = np.concatenate([halves, [-1e6, 1e6, -4e4, 4e4, -1e10, 1e10, -1e30, 1e30]])
    qparams = QParams(0.25, 71)
    expected = np.clip(np.rint(steps) + qparams.zero_point, 0, 255)[None]
    x = (steps * qparams.scale).astype(np.float32)[None]
    kernel = Quantize(1, len(steps))
    assert expected[0, -8:].tolist() == [0, 255] * 4
    return Case(kernel, x, None, LayerParams(output=qparams), expected, exact=True)


def infinity_case() -> Case:
    """Infinities saturate too, in vectors and in the single elements behind them."""
    x = np.full((1, 11), np.inf, np.float32)
    x[0, ::2] = -np.inf
    kernel = Quantize(*x.shape)
    params = LayerParams(output=QParams(0.25, 71))
    return Case(kernel, x, None, params, np.where(x > 0, 255.0, 0.0), exact=True)
