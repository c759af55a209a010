"""Descriptions, symbols and refusals of kernels; nothing is compiled here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from compilers.errors import KernelError, TargetError
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
from compilers.kernels.base import LayerParams, QParams
from compilers.targets import ISAS
from spaces.layer_spec import Activation

VNNI = ISAS["avx512_vnni"]


def test_symbols_are_identifiers_unique_per_kernel_and_isa() -> None:
    kernels = [
        Gemm(36, 16, 24),
        Gemm(36, 24, 16),
        Gemm(36, 16, 24, "uint8"),
        Gemm(36, 16, 24, residual="float32"),
        Gemm(36, 16, 24, activation=Activation.RELU),
        Conv(6, 6, 16, 24, 3, 1),
        Depthwise(6, 6, 16, 3, 1),
        Depthwise(6, 6, 16, 3, 2),
        SqueezeExcite(36, 16, 8),
        GlobalPool(36, 16),
        Conv(6, 6, 16, 24, 3, 1, padding=0),
        MaxPool(6, 6, 16, 3, 1),
        MaxPool(6, 6, 16, 3, 1, 1),
        AvgPool(6, 6, 16, 3, 1),
        AvgPool(6, 6, 16, 3, 1, dtype="uint8"),
        Quantize(36, 16),
        QuantizeImage(6, 6, 3),
        Dequantize(36, 16),
        Gemm(36, 16, 24, "uint8", weight_bits=4),
        Conv(6, 6, 16, 24, 3, 1, "nhwc", "uint8", weight_bits=4),
        Depthwise(6, 6, 16, 3, 1, "uint8", weight_bits=4),
        WeightOnlyGemm(1, 64, 24, 4, 32),
        WeightOnlyGemm(1, 64, 24, 4, 64),
        WeightOnlyGemm(1, 64, 24, 8, 64),
    ]
    symbols = [kernel.symbol(isa) for kernel in kernels for isa in ISAS.values()]
    assert len(set(symbols)) == len(kernels) * len(ISAS)
    assert all(symbol.isidentifier() for symbol in symbols)


def test_threads_are_part_of_the_symbol_and_at_least_one() -> None:
    kernel = Quantize(1000, 64)
    assert VNNI.threads == 1
    two = VNNI.with_threads(2)
    assert kernel.symbol(two) != kernel.symbol(VNNI)
    assert kernel.symbol(two).isidentifier()
    assert kernel.symbol(two.with_threads(1)) == kernel.symbol(VNNI)
    with pytest.raises(TargetError, match="0 threads"):
        VNNI.with_threads(0)


@pytest.mark.parametrize(("rows", "parallel"), [(1000, True), (10, False)])
def test_only_work_that_pays_is_divided(rows: int, parallel: bool) -> None:
    function = Quantize(rows, 640).prim_func(VNNI.with_threads(2))
    assert ("T.parallel(2)" in function.script()) == parallel
    assert "T.parallel" not in Quantize(rows, 640).prim_func(VNNI).script()


def test_equal_descriptions_are_one_kernel() -> None:
    plain, enum = Gemm(4, 8, 8, activation="relu"), Gemm(4, 8, 8, activation=Activation.RELU)
    assert plain == enum
    assert hash(plain) == hash(enum)
    assert plain.symbol(VNNI) == enum.symbol(VNNI)
    assert Conv(6, 6, 8, 8, 3, 1, padding=1) == Conv(6, 6, 8, 8, 3, 1)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Gemm(4, 6, 8, "uint8"), "6 channels"),
        (lambda: Gemm(4, 8, 10, residual="float32"), "10 channels"),
        (lambda: Gemm(0, 8, 8), "0 x 8 x 8"),
        (lambda: Gemm(4, 8, 8, "int8"), "'int8'"),
        (lambda: Gemm(4, 8, 8, "uint8", weight_bits=3), "weight_bits 3 .*allowed: 4, 8"),
        (lambda: Gemm(4, 8, 8, weight_bits=4), "weight_bits 4 with a float32 input; allowed: 8"),
        (lambda: WeightOnlyGemm(1, 64, 8, 5, 64), "bits of 5; allowed: 4, 8"),
        (lambda: WeightOnlyGemm(1, 64, 8, 4, 48), "groups of 48; allowed: 32, 64, 128"),
        (lambda: WeightOnlyGemm(1, 0, 8, 4, 32), "every size must be >= 1"),
        (lambda: WeightOnlyGemm(1, 64, 9, 4, 32, residual="uint8"), "multiple of 8"),
        (lambda: Gemm(4, 8, 8, activation="tanh"), "'tanh'"),
        (lambda: Gemm(4, 8, 8, combine="multiply"), "no"),
        (lambda: Gemm(4, 8, 8, residual="float32", combine="max"), "'max'"),
        (lambda: Conv(4, 4, 8, 8, 3, 1, activation="relu", activation_last=True), "there is none"),
        (lambda: Conv(8, 8, 1, 8, 2, 1, padding=2), "padding 2"),
        (lambda: Conv(4, 4, 8, 8, 5, 1, padding=0), "does not fit"),
        (lambda: MaxPool(8, 8, 16, 2, 2, 2), "padding 2"),
        (lambda: AvgPool(8, 2, 16, 3, 2), "does not fit"),
        (lambda: Conv(8, 8, 4, 8, 3, 1, "nchw", "uint8"), "nchw"),
        (lambda: Depthwise(8, 8, 12, 3, 1), "12 channels"),
        (lambda: Depthwise(8, 8, 16, 3, 3), "stride 3"),
        (lambda: SqueezeExcite(4, 12, 8), "12 channels"),
        (lambda: GlobalPool(4, 8, "float16"), "'float16'"),
        (lambda: Quantize(0, 8), "0 x 8"),
        (lambda: QuantizeImage(8, 0, 3), "3 x 8 x 0"),
        (lambda: QParams(0.0, 1), "0.0"),
        (lambda: QParams(1.0, 256), "256"),
    ],
)
def test_what_no_template_covers_is_refused(build: object, words: str) -> None:
    with pytest.raises(KernelError, match=words):
        build()  # type: ignore[operator]


def test_parameters_that_do_not_fit_are_refused() -> None:
    kernel = Gemm(4, 8, 16)
    weight, bias = np.zeros((16, 8), np.float32), np.zeros(16, np.float32)
    with pytest.raises(KernelError, match=r"\[8, 16\].*\[16, 8\]"):
        kernel.constants(VNNI, LayerParams(weight=weight.T, bias=bias))
    with pytest.raises(KernelError, match="bias"):
        kernel.constants(VNNI, LayerParams(weight=weight))
    with pytest.raises(KernelError, match="output is uint8"):
        replace(kernel, output_dtype="uint8").constants(VNNI, LayerParams(weight, bias))
    integers = LayerParams(
        np.full((16, 8), 127, np.int8),
        np.full(16, -(2**31) + 5, np.int32),
        np.ones(16, np.float32),
        QParams(1.0, 255),
    )
    with pytest.raises(KernelError, match="32 bits"):
        replace(kernel, input_dtype="uint8").constants(VNNI, integers)
