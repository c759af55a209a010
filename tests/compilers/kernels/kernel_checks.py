"""Run in a child process: every template of one ISA against references in float64 and integers.

    python kernel_checks.py ISA EVERY

EVERY takes each n-th case. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, product

import numpy as np
from case_execution import check
from kernel_case import DTYPES, GELU, HARDSWISH, NONE, RELU, SILU, Case
from layer_cases import excite_case, large_bias_case, layer_case, weight_only_case
from other_cases import infinity_case, other_case, ties_case

from compilers.kernels import (
    AvgPool,
    Conv,
    Depthwise,
    Dequantize,
    Gemm,
    GlobalPool,
    MaxPool,
    Quantize,
    QuantizeImage,
    SqueezeExcite,
    WeightOnlyGemm,
)
from compilers.targets import ISAS
from spaces.layer_spec import Activation


def gemm_ties_case(size: int, activation: Activation, residual: bool) -> Case:
    """Ties through a matrix product with an identity weight, or through its residual.

    Args:
        size: channels; full vectors are converted four at once, others alone.
        activation: none or relu.
        residual: the values are the residual, and the weight is zero.
    """
    case = ties_case()
    x, expected = case.x[:, -size:], case.expected[:, -size:]
    if activation == RELU and not residual:
        expected = np.maximum(expected, 71)
    weight = np.zeros((size, size), np.float32) if residual else np.eye(size, dtype=np.float32)
    params = replace(case.params, weight=weight, bias=np.zeros(size, np.float32))
    kernel = Gemm(1, size, size, "float32", activation, "float32" if residual else None, "uint8")
    return Case(
        kernel,
        np.zeros_like(x) if residual else x,
        x if residual else None,
        params,
        expected,
        exact=True,
    )


def epilogue_kernels() -> Iterator[Gemm | Conv | Depthwise]:
    """Smooth activations, gates, and activations behind the residual."""
    for activation, source, output in product((GELU, SILU), DTYPES, DTYPES):
        # Few rows: code with these functions takes long to compile.
        yield Gemm(3, 20, 40, source, activation, None, output)
        yield Depthwise(3, 5, 24, 3, 1, source, activation, output)
    gates = list(product((NONE, RELU, HARDSWISH, GELU, SILU), ("add", "multiply"), (False, True)))
    types = list(product(DTYPES, repeat=3))
    for i, (activation, combine, last) in enumerate(gates):
        # Each combination with two choices of types; all of these occur.
        for source, residual, output in (types[i % 8], types[(5 * i + 3) % 8]):
            yield Gemm(6, 20, 24, source, activation, residual, output, combine, last)
    for source, residual, output in types:
        tail = (source, RELU, residual, output, "add", True)
        yield Conv(3, 4, 8, 64, 3, 1, "nhwc", *tail)


def pools() -> Iterator[MaxPool | AvgPool]:
    """Windows that do and do not overlap, at and beside the border; odd channels."""
    shapes = (
        (7, 8, 24, 3, 2, 1),
        (6, 5, 19, 2, 2, 0),
        (5, 5, 200, 3, 1, 1),
        (4, 6, 8, 2, 1, 1),
        (3, 9, 264, 3, 3, 0),
        (1, 1, 1, 1, 1, 0),
    )
    for shape, dtype in product(shapes, DTYPES):
        yield MaxPool(*shape, dtype)
        yield AvgPool(*shape, dtype)


def low_bit_cases(rng: np.random.Generator) -> Iterator[Case]:
    """Weights of 4 bits in integer kernels, odd numbers of steps included; weight-only kernels."""
    for kernel in (
        Gemm(13, 20, 40, "uint8", weight_bits=4),
        Gemm(1, 64, 10, "uint8", weight_bits=4),
        Gemm(7, 260, 24, "uint8", weight_bits=4),
        Conv(5, 6, 12, 24, 3, 1, "nhwc", "uint8", weight_bits=4),
        Conv(6, 6, 8, 10, 3, 2, "nhwc", "uint8", weight_bits=4),
        Depthwise(9, 8, 24, 5, 1, "uint8", weight_bits=4),
        Depthwise(9, 8, 40, 3, 2, "uint8", weight_bits=4),
        Depthwise(9, 8, 8, 7, 2, "uint8", weight_bits=4),
    ):
        yield layer_case(kernel, rng, unit=True)
    fused = Gemm(13, 20, 40, "uint8", HARDSWISH, "uint8", "uint8", weight_bits=4)
    yield layer_case(fused, rng, unit=False)
    for weight_only in (
        WeightOnlyGemm(1, 200, 90, 4, 64),
        WeightOnlyGemm(1, 200, 90, 8, 128),
        WeightOnlyGemm(3, 5, 3, 4, 32),
        WeightOnlyGemm(1, 7, 9, 8, 32),
        WeightOnlyGemm(5, 77, 40, 4, 32, RELU, "uint8", "uint8"),
        WeightOnlyGemm(14, 96, 24, 4, 128, HARDSWISH, "float32"),
        WeightOnlyGemm(14, 96, 24, 8, 64),
    ):
        yield weight_only_case(weight_only, rng)


def far_weight_cases(rng: np.random.Generator) -> Iterator[Case]:
    """Weights that are fetched ahead: the last fetches lie behind them."""
    for kernel in (
        Gemm(15, 520, 136),
        Gemm(3, 1032, 264, "uint8"),
        Gemm(31, 1032, 264, "uint8", RELU, "uint8", "uint8"),
        Gemm(5, 1032, 520, "uint8", weight_bits=4),
        Conv(4, 5, 168, 176, 3, 1, "nhwc", "uint8"),
        Conv(4, 5, 72, 120, 3, 2),
        Conv(7, 6, 64, 72, 3, 1),
    ):
        exact = kernel.input_dtype == "uint8" and kernel.output_dtype == "float32"
        yield layer_case(kernel, rng, unit=exact)


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """All combinations of types on one shape of each template, and odd shapes of each."""
    yield ties_case()
    yield infinity_case()
    for size, activation in ((608, NONE), (608, RELU), (8, NONE)):
        yield gemm_ties_case(size, activation, residual=False)
    for size, activation in ((608, NONE), (8, RELU)):
        yield gemm_ties_case(size, activation, residual=True)
    combinations = list(product(DTYPES, (NONE, RELU, HARDSWISH), (None, *DTYPES), DTYPES))
    for input_dtype, activation, residual, output in combinations:
        kernel = Gemm(13, 20, 40, input_dtype, activation, residual, output)
        yield layer_case(kernel, rng, unit=False)
        if activation == HARDSWISH:
            conv = Conv(
                5, 6, 8, 24, 3, 1, "nhwc", input_dtype, activation, residual, output
            )  # fmt: skip
            yield layer_case(conv, rng, unit=False)
        if residual is None:
            depthwise = Depthwise(9, 8, 24, 3, 1, input_dtype, activation, output)
            yield layer_case(depthwise, rng, unit=False)
    for kernel in epilogue_kernels():
        yield layer_case(kernel, rng, unit=False)
    for activation, output in product((NONE, RELU, HARDSWISH), DTYPES):
        stem = Conv(18, 18, 1, 16, 3, 2, "nchw", "float32", activation, None, output)
        yield layer_case(stem, rng, unit=False)
    shapes: list[Gemm | Conv | Depthwise] = [
        Gemm(1, 64, 10),
        Gemm(1, 8, 1),
        Gemm(36, 8, 72),
        Gemm(49, 72, 24),
        Gemm(9, 128, 200),
        Gemm(100, 16, 8),
        Gemm(7, 260, 12),
        Depthwise(12, 12, 72, 5, 1),
        Depthwise(13, 7, 40, 7, 2),
        Depthwise(24, 24, 8, 3, 2),
        Depthwise(3, 3, 88, 7, 1),
        Depthwise(1, 1, 16, 5, 1),
        Depthwise(2, 5, 24, 3, 2),
        Conv(11, 9, 12, 10, 3, 2),
        Conv(4, 17, 16, 72, 5, 1),
        Conv(1, 1, 8, 8, 3, 1),
        Conv(6, 6, 40, 24, 1, 2),
        Conv(9, 10, 8, 24, 4, 3, padding=0),
        Conv(5, 8, 8, 20, 2, 1, padding=1),
        Conv(12, 13, 40, 72, 3, 1),
        Conv(6, 7, 32, 40, 3, 1, padding=0),
    ]
    for number, shape in enumerate(shapes):
        every_tile = number % 3 == 0
        yield replace(layer_case(shape, rng, unit=False), every_tile=every_tile)
        integers = replace(shape, input_dtype="uint8")
        yield replace(layer_case(integers, rng, unit=True), every_tile=every_tile)
        integer = replace(shape, input_dtype="uint8", output_dtype="uint8", activation=RELU)
        yield layer_case(integer, rng, unit=False)
    for kernel in (
        Gemm(7, 260, 24, "uint8"),
        Conv(5, 6, 8, 24, 3, 1, "nhwc", "uint8"),
        Depthwise(9, 8, 24, 5, 1, "uint8"),
    ):
        yield large_bias_case(kernel, rng)
    for channels in (1, 3):
        yield layer_case(Conv(23, 20, channels, 40, 3, 2, "nchw"), rng, unit=False)
        yield layer_case(Conv(12, 17, channels, 24, 4, 4, "nchw", padding=0), rng, unit=False)
    yield layer_case(Conv(15, 14, 3, 16, 7, 2, "nchw"), rng, unit=False)
    for (pixels, channels, hidden), source, output in product(
        ((36, 72, 24), (1, 8, 8), (50, 200, 56)), DTYPES, DTYPES
    ):
        yield excite_case(SqueezeExcite(pixels, channels, hidden, source, output), rng)
        yield other_case(GlobalPool(pixels, channels, source, output), rng)
    for kernel in pools():
        yield other_case(kernel, rng)
    for rows, channels in ((37, 24), (1, 10), (3, 5), (2, 9), (4, 11)):
        yield other_case(Quantize(rows, channels), rng)
        yield other_case(Dequantize(rows, channels), rng)
    for image in ((5, 37, 3), (3, 4, 4), (2, 19, 5), (1, 1, 1)):
        yield other_case(QuantizeImage(*image), rng)
    yield from far_weight_cases(rng)
    yield from low_bit_cases(rng)


if __name__ == "__main__":
    every_case = cases(np.random.default_rng(7))
    chosen = islice(every_case, 0, None, int(sys.argv[2]))
    print(json.dumps(check(ISAS[sys.argv[1]], chosen)))
