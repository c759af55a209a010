"""Run in a child process: every template of one ISA against references in float64 and integers.

    python kernel_checks.py ISA EVERY
    python kernel_checks.py ISA threads

EVERY takes each n-th case; `threads` compares two threads with one, bit for bit.
Every case runs with arguments that begin right behind, then with arguments that end right before a
page without access, so that a read or write beside them kills the process; bytes around the output
must keep their canary. Kernels for another architecture run under emulation, where arguments end
before such a page. Prints one JSON object.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from compilers.build import link
from compilers.emulation import Call, Emulator, call_kernels
from compilers.kernel_library import KernelLibrary, compile_kernel
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
from compilers.kernels.base import Kernel, LayerParams, QParams
from compilers.kernels.tiling import Tile
from compilers.targets import ISAS, Isa
from compilers.toolchain import is_foreign
from spaces.layer_spec import Activation

INPUT = QParams(0.0231, 113)
RESIDUAL = QParams(0.0173, 97)
OUTPUT = QParams(0.0371, 71)
DTYPES = ("float32", "uint8")
CANARY = 0xA5
NONE, RELU, HARDSWISH = Activation.NONE, Activation.RELU, Activation.HARDSWISH
GELU, SILU = Activation.GELU, Activation.SILU

_libc = ctypes.CDLL(None, use_errno=True)


class Guarded:
    """An array in a mapping between two pages without access.

    Args:
        array: what it holds.
        at_end: it ends (to within an alignment of 64 bytes) where the second one begins;
            otherwise it begins where the first one ends.
    """

    def __init__(self, array: np.ndarray, at_end: bool) -> None:
        page = mmap.PAGESIZE
        size = max(array.nbytes, 1)
        used = -(-size // 64) * 64
        pages = -(-(used + 64) // page)
        self.map = mmap.mmap(-1, (pages + 2) * page)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        for place in (base, base + (pages + 1) * page):
            if _libc.mprotect(ctypes.c_void_p(place), page, 0) != 0:
                raise OSError(ctypes.get_errno(), "mprotect")
        self.bytes = np.frombuffer(self.map, np.uint8, pages * page, page)
        self.bytes[:] = CANARY
        self.first = pages * page - used if at_end else 0
        self.size = array.nbytes
        self.array = self.bytes[self.first : self.first + size].view(array.dtype)
        self.array = self.array.reshape(array.shape)
        self.array[...] = array

    def intact(self) -> bool:
        """Whether no byte beside the array changed."""
        before, after = self.bytes[: self.first], self.bytes[self.first + self.size :]
        return bool((before == CANARY).all() and (after == CANARY).all())


@dataclass
class Case:
    kernel: Kernel
    x: np.ndarray
    residual: np.ndarray | None
    params: LayerParams
    expected: np.ndarray
    exact: bool = False
    every_tile: bool = False
    tile: Tile | None = None
    inputs: tuple[np.ndarray, ...] = ()


def real(values: np.ndarray, qparams: QParams) -> np.ndarray:
    if values.dtype != np.uint8:
        return values.astype(np.float64)
    return (values.astype(np.float64) - qparams.zero_point) * qparams.scale


def activate(values: np.ndarray, activation: Activation) -> np.ndarray:
    if activation == RELU:
        return np.maximum(values, 0)
    if activation == HARDSWISH:
        return values * np.clip(values / 6 + 0.5, 0, 1)
    if activation == GELU:
        return values * torch.special.ndtr(torch.from_numpy(values)).numpy()
    if activation == SILU:
        return values / (1 + np.exp(-values))
    return values


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "float32":
        return values
    return np.clip(np.rint(values / OUTPUT.scale) + OUTPUT.zero_point, 0, 255)


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if dtype == "uint8":
        return rng.integers(0, 256, shape).astype(np.uint8)
    return rng.standard_normal(shape).astype(np.float32)


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
        yield Gemm(13, 20, 40, source, activation, None, output)
        yield Depthwise(4, 5, 24, 3, 1, source, activation, output)
    gates = list(product((NONE, RELU, HARDSWISH, GELU, SILU), ("add", "multiply"), (False, True)))
    types = list(product(DTYPES, repeat=3))
    for i, (activation, combine, last) in enumerate(gates):
        # Each combination with two choices of types; all of these occur.
        for source, residual, output in (types[i % 8], types[(5 * i + 3) % 8]):
            yield Gemm(6, 20, 24, source, activation, residual, output, combine, last)
    for source, residual, output in types:
        tail = (source, RELU, residual, output, "add", True)
        yield Conv(3, 4, 8, 64, 3, 1, "nhwc", *tail)


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


def run(case: Case, isa: Isa) -> tuple[np.ndarray, list[str]]:
    """The output, and what is wrong with the arguments afterwards."""
    import tvm_ffi

    kernel = case.kernel
    function = compile_kernel(kernel, isa, case.tile)[kernel.symbol(isa, case.tile)]
    arrays = [case.x, *([] if case.residual is None else [case.residual])]
    arrays += [*case.inputs, *kernel.constants(isa, case.params)]
    wrong: list[str] = []
    for at_end in (False, True):
        output = Guarded(np.full(kernel.output_shape, 77, kernel.output_dtype), at_end)
        # An array that is passed twice is one tensor.
        guarded_arrays = {id(array): Guarded(array, at_end) for array in arrays}
        inputs = [guarded_arrays[id(array)] for array in arrays]
        function(*(tvm_ffi.from_dlpack(a.array) for a in (*inputs, output)))
        if not output.intact():
            wrong.append("wrote beside its output")
        for array, guarded in zip(arrays, inputs, strict=True):
            if not (np.array_equal(array, guarded.array) and guarded.intact()):
                wrong.append("wrote to an input")
    return output.array, wrong


def emulate(chosen: list[Case], isa: Isa) -> Iterator[tuple[np.ndarray, list[str]]]:
    """As `run`, for all cases in one program."""
    calls = []
    with tempfile.TemporaryDirectory() as folder:
        kernels = KernelLibrary(Path(folder) / "kernels")
        objects = {str(kernels.object_file(case.kernel, isa, case.tile)) for case in chosen}
        library = Path(folder) / "library.so"
        link(str(library), sorted(objects), isa)
        for case in chosen:
            arrays = [case.x, *([] if case.residual is None else [case.residual])]
            arrays += [*case.inputs, *case.kernel.constants(isa, case.params)]
            arrays = [np.array(array) for array in arrays]
            arrays.append(np.full(case.kernel.output_shape, 77, case.kernel.output_dtype))
            calls.append(Call(case.kernel.symbol(isa, case.tile), tuple(arrays)))
        before = [[np.array(array) for array in call.arguments[:-1]] for call in calls]
        call_kernels(Emulator(isa, Path(folder)), library, calls)
    for call, inputs in zip(calls, before, strict=True):
        kept = map(np.array_equal, call.arguments[:-1], inputs)
        yield call.arguments[-1], [] if all(kept) else ["wrote to an input"]


def check(isa: Isa, chosen: Iterable[Case]) -> dict[str, object]:
    failures: list[str] = []
    elements = differing = count = 0
    chosen = [
        replace(case, tile=tile)
        for case in chosen
        for tile in (None, *(case.kernel.candidates(isa)[1:] if case.every_tile else ()))
    ]
    outputs = (run(case, isa) for case in chosen)
    if is_foreign(isa.architecture):
        outputs = emulate(chosen, isa)
    for case, (found, wrong) in zip(chosen, outputs, strict=True):
        count += 1
        difference = np.abs(found.astype(np.float64) - case.expected)
        if case.exact and difference.max() != 0:
            wrong.append(f"accumulators differ by {difference.max()}")
        elif found.dtype == np.uint8:
            elements += found.size
            differing += int((difference > 0).sum())
            if difference.max() > 1:
                wrong.append(f"differs by {difference.max()} steps")
        elif (worst := difference.max() / max(1.0, np.abs(case.expected).max())) > 2e-6:
            wrong.append(f"relative error {worst}")
        failures += [f"{case.kernel} {case.tile or ''}: {text}" for text in wrong]
    return {"cases": count, "failures": failures, "elements": elements, "differing": differing}


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


def compare_threads(case: Case, isa: Isa) -> list[str]:
    """What is wrong with the kernel on two threads."""
    two = isa.with_threads(2)
    serial, wrong = run(case, isa)
    parallel, more = run(case, two)
    if not np.array_equal(serial, parallel):
        more.append("two threads give other bits")
    if "T.parallel(2)" not in case.kernel.prim_func(two).script():
        more.append("is not divided")
    return wrong + more


def check_threads(isa: Isa) -> dict[str, object]:
    """Which kernels give other bits with two threads, or are not divided at all."""
    rng = np.random.default_rng(7)
    failures: list[str] = []
    count = 0
    for kernel in large_kernels():
        count += 1
        if isinstance(kernel, Gemm | Conv | Depthwise):
            case = layer_case(kernel, rng, unit=False)
        elif isinstance(kernel, SqueezeExcite):
            case = excite_case(kernel, rng)
        else:
            case = other_case(kernel, rng)
        failures += [f"{kernel}: {text}" for text in compare_threads(case, isa)]
    return {"cases": count, "failures": failures}


if __name__ == "__main__":
    isa = ISAS[sys.argv[1]]
    if sys.argv[2] == "threads":
        result = check_threads(isa)
    else:
        every_case = cases(np.random.default_rng(7))
        result = check(isa, islice(every_case, 0, None, int(sys.argv[2])))
    print(json.dumps(result))
