"""Kernels called under emulation: shared tensors, and what a wrong one is told."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from compilers.build import link
from compilers.emulation import Call, call_kernels
from compilers.errors import ChildCrashError, MeasurementError
from compilers.kernel_library import KernelLibrary
from compilers.kernels import Conv, Dequantize, Quantize
from compilers.kernels.base import LayerParams, QParams
from compilers.kernels.emitter import MAX_STACK_BYTES

QUANTISED = QParams(0.25, 71)
SHAPE = (3, 40)


@pytest.fixture(scope="module")
def library(emulator, cache, tmp_path_factory):
    kernels = KernelLibrary(cache / "kernels")
    objects = [kernels.object_file(k(*SHAPE), emulator.isa) for k in (Quantize, Dequantize)]
    path = tmp_path_factory.mktemp("library") / "library.so"
    link(str(path), list(map(str, objects)), emulator.isa)
    return path


def call(kernel, isa, x, out):
    params = LayerParams(input=QUANTISED, output=QUANTISED)
    return Call(kernel.symbol(isa), (x, *kernel.constants(isa, params), out))


def test_a_call_reads_what_an_earlier_one_wrote(emulator, library):
    x = np.linspace(-30, 60, 120, dtype=np.float32).reshape(SHAPE)
    steps, real = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.float32)
    kept = x.copy()
    calls = [
        call(Quantize(*SHAPE), emulator.isa, x, steps),
        call(Dequantize(*SHAPE), emulator.isa, steps, real),
    ]
    call_kernels(emulator, library, calls)
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(steps, np.clip(np.rint(x / 0.25) + 71, 0, 255))
    np.testing.assert_array_equal(real, (steps.astype(np.float32) - 71) * 0.25)


def test_a_kernel_may_ask_for_memory(emulator, cache, tmp_path):
    kernel = Conv(33, 33, 32, 8, 3, 1, "nhwc", "uint8")
    assert MAX_STACK_BYTES < 35 * 35 * 32
    bias = np.arange(8, dtype=np.int32)
    weight = np.zeros((8, 32, 3, 3), np.int8)
    params = LayerParams(weight, bias, np.full(8, 0.5, np.float32), input=QUANTISED)
    x = np.full(kernel.input_shape, 9, np.uint8)
    out = np.zeros(kernel.output_shape, np.float32)
    link(
        str(tmp_path / "library.so"),
        [str(KernelLibrary(cache / "kernels").object_file(kernel, emulator.isa))],
        emulator.isa,
    )
    arguments = (x, *kernel.constants(emulator.isa, params), out)
    call_kernels(emulator, tmp_path / "library.so", [Call(kernel.symbol(emulator.isa), arguments)])
    assert (out == bias * 0.5).all()


def test_what_does_not_fit_is_an_error(emulator, library):
    x, out = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.uint8)
    good = call(Quantize(*SHAPE), emulator.isa, x, out)
    with pytest.raises(MeasurementError, match="no kernel nonsense"):
        call_kernels(emulator, library, [good, Call("nonsense", (x, out))])
    smaller = Call(good.symbol, (np.zeros((3, 41), np.float32), *good.arguments[1:]))
    with pytest.raises(MeasurementError, match="refuses its arguments"):
        call_kernels(emulator, library, [smaller])


@pytest.mark.parametrize(
    ("offset", "error"), [(0, None), (64, ChildCrashError), (-1, MeasurementError)]
)
def test_writing_beside_a_tensor_is_noticed(emulator, tmp_path, offset, error):
    source = tmp_path / "kernel.cc"
    source.write_text(
        "#include <tvm/ffi/c_api.h>\n"
        'extern "C" int __tvm_ffi_kernel(void*, const TVMFFIAny* x, int, TVMFFIAny*) {\n'
        "  char* data = (char*)((DLTensor*)x[0].v_ptr)->data;\n"
        f"  data[{offset}] = 7;\n  return 0;\n}}\n"
    )
    include = Path(importlib.util.find_spec("tvm_ffi").origin).parent / "include"
    kernel = emulator.compile(source, ["-shared", "-fPIC", f"-I{include}"])
    out = np.zeros(64, np.uint8)
    if error is None:
        call_kernels(emulator, kernel, [Call("kernel", (out,))])
        assert out[0] == 7
        return
    with pytest.raises(error, match="kernel"):
        call_kernels(emulator, kernel, [Call("kernel", (out,))])
