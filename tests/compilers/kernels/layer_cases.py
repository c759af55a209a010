"""Random layers with weights, their outputs computed in float64 and integers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from kernel_case import INPUT, OUTPUT, RESIDUAL, Case, activate, draw, real, stored

from compilers.kernels import Conv, Depthwise, Gemm, SqueezeExcite, WeightOnlyGemm
from compilers.kernels.base import LayerParams


def window(x: np.ndarray, weight: np.ndarray, stride: int, groups: int, padding: int) -> np.ndarray:
    """[1, C, H, W] and [O, C / groups, k, k] -> [pixels, O], float64 (exact for integers)."""
    y = F.conv2d(
        torch.from_numpy(x.astype(np.float64)),
        torch.from_numpy(weight.astype(np.float64)),
        stride=stride,
        padding=padding,
        groups=groups,
    )
    return y[0].permute(1, 2, 0).reshape(-1, len(weight)).numpy()


def layer_case(kernel: Gemm | Conv | Depthwise, rng: np.random.Generator, unit: bool) -> Case:
    """A random layer; `unit` makes scale 1, so that float32 output shows the accumulators."""
    integer = kernel.input_dtype == "uint8"
    if isinstance(kernel, Gemm):
        shape: tuple[int, ...] = (kernel.n, kernel.k, 1, 1)
        nchw, stride, groups = (1, kernel.k, kernel.m, 1), 1, 1
    elif isinstance(kernel, Conv):
        shape = (kernel.out_channels, kernel.in_channels, kernel.kernel, kernel.kernel)
        nchw, stride = (1, kernel.in_channels, kernel.height, kernel.width), kernel.stride
        groups = 1
    else:
        shape = (kernel.channels, 1, kernel.kernel, kernel.kernel)
        nchw, stride = (1, kernel.channels, kernel.height, kernel.width), kernel.stride
        groups = kernel.channels
    padding = kernel.border if isinstance(kernel, Conv) else shape[2] // 2
    x = draw(rng, nchw, kernel.input_dtype)
    depth = float(np.prod(shape[1:]))
    residual_dtype = getattr(kernel, "residual", None)
    residual = draw(rng, kernel.output_shape, residual_dtype) if residual_dtype else None
    if integer:
        largest = 7 if kernel.weight_bits == 4 else 127
        weight = rng.integers(-largest, largest + 1, shape).astype(np.int8)
        bias = rng.integers(-20000, 20000, shape[0]).astype(np.int32)
        scale = (rng.uniform(0.5, 1.5, shape[0]) / (5000 * depth**0.5)).astype(np.float32)
        if unit:
            scale = np.ones(shape[0], np.float32)
        real_x = x.astype(np.float64) - INPUT.zero_point
        sums = window(real_x, weight, stride, groups, padding) + bias
        value = sums * scale.astype(np.float64)
    else:
        weight = (rng.standard_normal(shape) / depth**0.5).astype(np.float32)
        bias, scale = rng.standard_normal(shape[0]).astype(np.float32), None
        value = window(x, weight, stride, groups, padding) + bias
    last = getattr(kernel, "activation_last", False)
    if not last:
        value = activate(value, kernel.activation)
    if residual is not None:
        other = real(residual, RESIDUAL)
        multiply = getattr(kernel, "combine", "add") == "multiply"
        value = value * other if multiply else value + other
    if last:
        value = activate(value, kernel.activation)
    params = LayerParams(
        weight=weight[:, :, 0, 0] if isinstance(kernel, Gemm) and kernel.m == 1 else weight,
        bias=bias,
        scale=scale,
        input=INPUT if integer else None,
        residual=RESIDUAL if residual_dtype == "uint8" else None,
        output=OUTPUT if kernel.output_dtype == "uint8" else None,
    )
    if not (isinstance(kernel, Conv) and kernel.input_layout == "nchw"):
        x = np.ascontiguousarray(x[0].transpose(1, 2, 0).reshape(kernel.input_shape))
    expected = stored(value, kernel.output_dtype)
    return Case(kernel, x, residual, params, expected, exact=unit)


def large_bias_case(kernel: Gemm | Conv | Depthwise, rng: np.random.Generator) -> Case:
    """Biases of 2^24 to 2^30, beyond which float32 sums would drop the products."""
    case = layer_case(kernel, rng, unit=True)
    assert case.params.bias is not None
    count = len(case.params.bias)
    magnitude = 2.0 ** rng.uniform(24, 30, count)
    bias = (magnitude * rng.choice([-1, 1], count)).astype(np.int32)
    sums = case.expected - case.params.bias + bias
    # Exact sums, rounded once: by the conversion of the output.
    return replace(case, params=replace(case.params, bias=bias), expected=sums.astype(np.float32))


def weight_only_case(kernel: WeightOnlyGemm, rng: np.random.Generator) -> Case:
    half = 1 << (kernel.bits - 1)
    x = draw(rng, kernel.input_shape, "float32")
    weight = rng.integers(-half, half, (kernel.n, kernel.k)).astype(np.int8)
    scale = rng.uniform(0.5, 1.5, (kernel.n, kernel.groups)) / half / kernel.k**0.5
    scale = scale.astype(np.float32)
    bias = rng.standard_normal(kernel.n).astype(np.float32)
    spread = np.repeat(scale.astype(np.float64), kernel.group, axis=1)[:, : kernel.k]
    value = activate(x.astype(np.float64) @ (weight * spread).T + bias, kernel.activation)
    residual = None
    if kernel.residual is not None:
        residual = draw(rng, kernel.output_shape, kernel.residual)
        value = value + real(residual, RESIDUAL)
    params = LayerParams(
        weight,
        bias,
        scale,
        residual=RESIDUAL if kernel.residual == "uint8" else None,
        output=OUTPUT if kernel.output_dtype == "uint8" else None,
    )
    return Case(kernel, x, residual, params, stored(value, kernel.output_dtype))


def excite_case(kernel: SqueezeExcite, rng: np.random.Generator) -> Case:
    x = draw(rng, kernel.input_shape, kernel.input_dtype)
    c, d = kernel.channels, kernel.hidden
    params = LayerParams(
        weight=(rng.standard_normal((d, c)) / c**0.5).astype(np.float32),
        bias=rng.standard_normal(d).astype(np.float32),
        expand_weight=rng.standard_normal((c, d)).astype(np.float32),
        expand_bias=rng.standard_normal(c).astype(np.float32),
        input=INPUT,
        output=OUTPUT,
    )
    value = real(x, INPUT)
    hidden = np.maximum(value.mean(0) @ params.weight.T.astype(np.float64) + params.bias, 0)
    gate = hidden @ params.expand_weight.T.astype(np.float64) + params.expand_bias
    expected = stored(value * np.clip(gate / 6 + 0.5, 0, 1), kernel.output_dtype)
    return Case(kernel, x, None, params, expected)
