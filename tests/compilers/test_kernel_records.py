"""What is stored about kernels is checked when it is read, and is never more than data."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from compilers.errors import KernelError, KernelRecordError
from compilers.kernel_records import (
    KernelChoice,
    KernelTiming,
    describe,
    label,
    parse_kernel,
    templates,
)
from compilers.kernels import (
    Attention,
    Conv,
    Copy,
    Depthwise,
    Dequantize,
    Gemm,
    GlobalPool,
    Quantize,
    SqueezeExcite,
)
from spaces.layer_spec import Activation

KERNELS = [
    Gemm(49, 24, 72, "uint8", Activation.HARDSWISH, "float32", "uint8"),
    Conv(14, 14, 1, 16, 3, 2, "nchw", activation=Activation.RELU),
    Depthwise(7, 7, 24, 5, 2, "uint8"),
    SqueezeExcite(9, 24, 8, "uint8", "uint8"),
    GlobalPool(9, 24),
    Quantize(4, 8),
    Dequantize(4, 8),
    Attention(
        4, 4, 2, 2, 16, 24, 0.25, False, 112, 0, 112, 32, 48, 0, bias=True,
        activation=Activation.HARDSWISH, output_dtype="uint8",
    ),
    Copy((9, 112), 9, 48, (9, 48), (112, 1), 64),
]  # fmt: skip
GEMM = {"template": "gemm", "m": 4, "k": 8, "n": 8}
CHOICE = {"kernel": GEMM, "isa": "avx2", "tile": {"rows": 4, "vectors": 1}}


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.kind)
def test_kernels_survive_json(kernel):
    again = parse_kernel(json.loads(json.dumps(describe(kernel))))
    assert again == kernel
    assert hash(again) == hash(kernel)
    assert type(again) is templates()[kernel.kind]


def test_left_out_fields_have_their_defaults():
    assert parse_kernel(GEMM) == Gemm(4, 8, 8)
    assert "template" not in label(Gemm(4, 8, 8))
    assert label(Gemm(4, 8, 8)).startswith("gemm m=4 k=8 n=8")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1], "must be an object"),
        ({"template": "gemmm"}, "unknown template 'gemmm'.*known: .*gemm, global_pool"),
        ({"template": ["gemm"]}, "unknown template"),
        (GEMM | {"code": "print()"}, "no field 'code'"),
        (GEMM | {"m": "4"}, "m of template 'gemm'"),
        (GEMM | {"m": 4.5}, "m of template 'gemm'"),
        (GEMM | {"activation": "tanh"}, "activation of template 'gemm'"),
        (GEMM | {"input_dtype": "int4"}, "input_dtype of template 'gemm'"),
        (GEMM | {"m": 0}, "must be >= 1"),
        ({"template": "gemm", "m": 4}, "k of template 'gemm'"),
    ],
)
def test_what_is_no_kernel_is_refused(data, message):
    with pytest.raises(KernelError, match=message):
        parse_kernel(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tile": {"rows": 0}}, "tile.rows"),
        ({"tile": {"rows": 2.0}}, "tile.rows"),
        ({"tile": {"rows": 10**9}}, "tile.rows"),
        ({"tile": {"rows": 2, "code": "x"}}, "unknown key 'tile.code'"),
        ({"isa": "z80"}, "unknown isa 'z80'"),
        ({"threads": 0}, "threads"),
        ({"kernel": GEMM | {"m": -1}}, "must be >= 1"),
        ({"extra": 1}, "unknown key 'extra'"),
    ],
)
def test_what_is_no_choice_is_refused(change, message):
    assert KernelChoice.parse(json.dumps(CHOICE)).tile.tile.rows == 4
    with pytest.raises(KernelRecordError, match=message):
        KernelChoice.parse(json.dumps(CHOICE | change))


@pytest.mark.parametrize("line", ["", "[]", "nonsense", "{", "[" * 100_000, '{"isa": NaN}'])
def test_what_is_no_record_is_refused(line):
    with pytest.raises(KernelRecordError):
        KernelChoice.parse(line)


def test_records_survive_their_line():
    choice = KernelChoice.parse(json.dumps(CHOICE))
    assert KernelChoice.parse(choice.line()) == choice
    assert choice.line().count(b"\n") == 1
    timing = KernelTiming(
        device={"config": {"name": "d"}, "hardware": "h"},
        kernel=replace(Gemm(4, 8, 8), activation=Activation.RELU),
        generator="0" * 16,
        median_us=1.5,
        p10_us=1.25,
        p90_us=2.0,
        repeats=15,
        call_us=0.4,
    )
    assert KernelTiming.parse(timing.line()) == timing
    assert timing.latency_us == 1.5 + 0.4
    with pytest.raises(KernelRecordError, match="median_us"):
        KernelTiming.parse(timing.line().replace(b"1.5", b"-1.5"))
