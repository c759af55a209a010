"""Run in a child process: every template on two threads of one ISA gives the bits of one thread.

    python thread_checks.py ISA

Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import numpy as np
from case_execution import compare_threads
from kernel_case import DTYPES, HARDSWISH, RELU, Case
from layer_cases import excite_case, layer_case
from other_cases import other_case

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
)
from compilers.kernels.base import Kernel
from compilers.targets import ISAS, Isa


def large_kernels() -> Iterator[Kernel]:
    """One or more of each template, with enough work for two threads."""
    for dtype in DTYPES:
        tail = (dtype, RELU, None, dtype)
        yield Gemm(197, 128, 520, *tail)
        yield Gemm(1, 4096, 1032, *tail)
        yield Conv(15, 13, 64, 72, 3, 1, "nhwc", *tail)
        yield Conv(7, 4, 128, 256, 3, 1, "nhwc", *tail)
        for kernel, stride in ((3, 1), (5, 2)):
            yield Depthwise(57, 50, 72, kernel, stride, dtype, HARDSWISH, dtype)
        yield SqueezeExcite(2500, 88, 24, dtype, dtype)
        yield GlobalPool(3000, 200, dtype, dtype)
        yield MaxPool(113, 90, 72, 3, 2, 1, dtype)
        yield AvgPool(113, 90, 72, 3, 2, 1, dtype)
    yield Conv(111, 90, 3, 40, 7, 2, "nchw")
    # These copies are divided, too.
    yield Conv(201, 224, 3, 16, 3, 2, "nchw")
    yield Conv(57, 64, 32, 16, 3, 1, "nhwc", "uint8", output_dtype="uint8")
    yield Conv(61, 60, 32, 40, 3, 1)
    yield Conv(13, 13, 64, 136, 3, 1)
    yield Quantize(1001, 130)
    yield QuantizeImage(113, 190, 3)
    yield Dequantize(1001, 130)


def _case(kernel: Kernel, rng: np.random.Generator) -> Case:
    match kernel:
        case Gemm() | Conv() | Depthwise():
            return layer_case(kernel, rng, unit=False)
        case SqueezeExcite():
            return excite_case(kernel, rng)
        case _:
            return other_case(kernel, rng)


def check_threads(isa: Isa) -> dict[str, object]:
    """Which kernels give other bits with two threads, or are not divided at all."""
    rng = np.random.default_rng(7)
    failures: list[str] = []
    count = 0
    for kernel in large_kernels():
        count += 1
        failures += [f"{kernel}: {text}" for text in compare_threads(_case(kernel, rng), isa)]
    return {"cases": count, "failures": failures}


if __name__ == "__main__":
    print(json.dumps(check_threads(ISAS[sys.argv[1]])))
