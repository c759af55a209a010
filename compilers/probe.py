"""What a device really executes: every operator in every precision, run and compared with NumPy.

One small kernel per operator and precision (a few for convolutions, which come as several
templates). Integer layers write float32 with scales of 1, so that their accumulators are seen and
must be exact; pooling and squeeze-and-excite may round to the neighbouring step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from compilers.build import link
from compilers.errors import MismatchError
from compilers.kernel_library import KernelLibrary, compile_kernel
from compilers.kernels import (
    Attention,
    Conv,
    Copy,
    Depthwise,
    Dequantize,
    Gemm,
    GlobalPool,
    MaxPool,
    Norm,
    Quantize,
    SqueezeExcite,
    WeightOnlyGemm,
)
from compilers.kernels.base import DType, Kernel, LayerParams, QParams
from compilers.kernels.nibbles import held_bits
from compilers.targets import Isa
from spaces.capabilities import PROBED
from spaces.layer_spec import LAYER_NORM_EPSILON, Activation, Operator
from spaces.quant_scheme import QuantScheme, precision

Array = NDArray[np.generic]
FloatArray = NDArray[np.float64]

_INPUT = QParams(0.0231, 113)
_OUTPUT = QParams(0.0371, 71)
_FLOAT_TOLERANCE = 1e-5


class Trial(NamedTuple):
    """One kernel, what goes in, and what must come out.

    Attributes:
        kernel: The kernel.
        x: Its input.
        params: Weights and quantisation.
        expected: Its output, [pixels, channels] float64.
        allowed: Largest difference, absolute; 0 for accumulators of integers.
        others: Further inputs, in the order of its arguments.
    """

    kernel: Kernel
    x: Array
    params: LayerParams
    expected: FloatArray
    allowed: float
    others: tuple[Array, ...] = ()

    def arguments(self, isa: Isa) -> list[Array]:
        """What the kernel's function reads, in order."""
        return [self.x, *self.others, *self.kernel.constants(isa, self.params)]


def probe(operator: Operator, scheme: str, isa: Isa) -> None:
    """Compile and run the kernels of one operator in one precision, in this process.

    Args:
        operator: The operator.
        scheme: name of a precision.
        isa: Instruction set to compile for.

    Raises:
        MismatchError: A kernel's output is wrong.
        KernelError: No template covers it.
    """
    for trial in trials(operator, scheme):
        found = _run(trial, isa)
        difference = float(np.abs(found.astype(np.float64) - trial.expected).max())
        if not difference <= trial.allowed:
            raise MismatchError(f"{trial.kernel} on {isa.name} is wrong by up to {difference:g}")


def _run(trial: Trial, isa: Isa) -> Array:
    import tvm

    kernel = trial.kernel
    function = _compiled(kernel, isa)
    out = tvm.runtime.tensor(np.zeros(kernel.output_shape, kernel.output_dtype))
    arguments = trial.arguments(isa)
    function(*(tvm.runtime.tensor(np.ascontiguousarray(array)) for array in arguments), out)
    found: Array = out.numpy()
    return found


@cache
def _compiled(kernel: Kernel, isa: Isa) -> Any:
    """The function of a kernel, which several precisions may share."""
    return compile_kernel(kernel, isa)[kernel.symbol(isa)]


def write_trials(
    operator: Operator, scheme: str, isa: Isa, kernels: KernelLibrary, folder: Path
) -> list[dict[str, Any]]:
    """Compile the kernels of one operator in one precision, to be run elsewhere.

    Args:
        operator: The operator.
        scheme: name of a precision.
        isa: Instruction set to compile for.
        kernels: Where compiled kernels are kept.
        folder: Receives a library and its data per trial.

    Returns:
        JSON objects: `library`, `symbol`, `inputs` (.npy files), `shape` and `dtype` of the output,
        what it must be (`expected`, .npy) and the largest difference `allowed`.

    Raises:
        KernelError: No template covers it.
        BuildError: A library could not be linked.
    """
    written = []
    for number, trial in enumerate(trials(operator, scheme)):
        kernel = trial.kernel
        library = folder / f"{number}.so"
        link(str(library), [str(kernels.object_file(kernel, isa))], isa)
        arrays = [*trial.arguments(isa), trial.expected]
        files = [folder / f"{number}-{i}.npy" for i in range(len(arrays))]
        for file, array in zip(files, arrays, strict=True):
            np.save(file, np.ascontiguousarray(array))
        *inputs, expected = map(str, files)
        written.append(
            {
                "library": str(library),
                "symbol": kernel.symbol(isa),
                "inputs": inputs,
                "shape": list(kernel.output_shape),
                "dtype": kernel.output_dtype,
                "expected": expected,
                "allowed": trial.allowed,
            }
        )
    return written


def trials(operator: Operator, scheme: str) -> list[Trial]:
    """The kernels that carry an operator in a precision, with seeded random data.

    None for an operator that cannot have the precision; see `PROBED`.
    """
    rng, found = np.random.default_rng(0), precision(scheme)
    if (operator, scheme) not in PROBED:
        return []
    if found.weight_only:
        assert found.weight is not None
        return [_weight_only(found.weight, rng)]
    dtype: DType = "float32" if found.activation is None else "uint8"
    return _TRIALS[operator](dtype, found.weight.bits if found.weight else 8, rng)


def _draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: DType) -> Array:
    if dtype == "uint8":
        return rng.integers(0, 256, shape).astype(np.uint8)
    return rng.standard_normal(shape).astype(np.float32)


def _real(x: Array) -> FloatArray:
    """Real values of a tensor, which is quantised with `_INPUT` if it is uint8."""
    wide: FloatArray = x.astype(np.float64)
    return wide if x.dtype != np.uint8 else (wide - _INPUT.zero_point) * _INPUT.scale


def _layer(
    kernel: Gemm | Conv | Depthwise,
    image: tuple[int, int],
    weight_shape: tuple[int, ...],
    stride: int,
    bits: int,
    rng: np.random.Generator,
) -> Trial:
    """A layer with weights [O, I, k, k], or [C, 1, k, k] of a depthwise convolution.

    `bits` is the stored width of integer weights.
    """
    integer = kernel.input_dtype == "uint8"
    x = _draw(rng, kernel.input_shape, kernel.input_dtype)
    count = weight_shape[0]
    weight: Array
    bias: NDArray[Any]
    if integer:
        largest = 2 ** (bits - 1) - 1
        weight = rng.integers(-largest, largest + 1, weight_shape).astype(np.int8)
        bias = rng.integers(-20000, 20000, count).astype(np.int32)
    else:
        weight = rng.standard_normal(weight_shape).astype(np.float32)
        bias = rng.standard_normal(count).astype(np.float32)
    centred = x.astype(np.float64) - (_INPUT.zero_point if integer else 0)
    depthwise = isinstance(kernel, Depthwise)
    expected = _windows(centred.reshape(*image, -1), weight, stride, depthwise) + bias
    scale = np.ones(count, np.float32) if integer else None
    params = LayerParams(weight, bias, scale, input=_INPUT if integer else None)
    allowed = 0.0 if integer else _FLOAT_TOLERANCE * float(np.abs(expected).max())
    return Trial(kernel, x, params, expected, allowed)


def _windows(x: FloatArray, weight: Array, stride: int, depthwise: bool) -> FloatArray:
    """[H, W, C] and [O, I, k, k] -> [pixels, O]; zeros outside the image."""
    k = weight.shape[2]
    padded = np.pad(x, ((k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    # [H, W, C, k, k]
    windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), axis=(0, 1))
    windows = windows[::stride, ::stride]
    taps = weight.astype(np.float64)
    if depthwise:
        out = np.einsum("hwckl,ckl->hwc", windows, taps[:, 0])
    else:
        out = np.einsum("hwikl,oikl->hwo", windows, taps)
    return out.reshape(-1, out.shape[-1])


def _plain(kernel: Kernel, x: Array, real: FloatArray, params: LayerParams) -> Trial:
    """A kernel that computes in float32 whatever it reads and writes."""
    if kernel.output_dtype == "float32":
        return Trial(kernel, x, params, real, _FLOAT_TOLERANCE * float(np.abs(real).max()))
    steps = np.clip(np.rint(real / _OUTPUT.scale) + _OUTPUT.zero_point, 0, 255)
    return Trial(kernel, x, params, steps, 1.0)


def _conv(dtype: DType, bits: int, rng: np.random.Generator) -> list[Trial]:
    dense = Conv(5, 5, 8, 24, 3, 2, "nhwc", dtype, weight_bits=held_bits(bits))
    pointwise = Gemm(9, 16, 24, dtype, weight_bits=held_bits(bits))
    found = [
        _layer(dense, (5, 5), (24, 8, 3, 3), 2, bits, rng),
        _layer(pointwise, (3, 3), (24, 16, 1, 1), 1, bits, rng),
    ]
    if dtype == "uint8":
        params = LayerParams(input=_INPUT, output=_OUTPUT)
        x, q = _draw(rng, (3, 24), "float32"), _draw(rng, (3, 24), "uint8")
        found.append(_plain(Quantize(3, 24), x, _real(x), params))
        found.append(_plain(Dequantize(3, 24), q, _real(q), params))
    return found


def _depthwise(dtype: DType, bits: int, rng: np.random.Generator) -> list[Trial]:
    kernel = Depthwise(5, 5, 24, 3, 1, dtype, weight_bits=held_bits(bits))
    return [_layer(kernel, (5, 5), (24, 1, 3, 3), 1, bits, rng)]


def _linear(dtype: DType, bits: int, rng: np.random.Generator) -> list[Trial]:
    kernel = Gemm(1, 16, 10, dtype, weight_bits=held_bits(bits))
    return [_layer(kernel, (1, 1), (10, 16, 1, 1), 1, bits, rng)]


def _weight_only(scheme: QuantScheme, rng: np.random.Generator) -> Trial:
    group = scheme.group_size or 1
    kernel = WeightOnlyGemm(1, 2 * group + 8, 24, scheme.bits, group)
    x = _draw(rng, kernel.input_shape, "float32")
    weight = rng.integers(scheme.qmin, scheme.qmax + 1, (kernel.n, kernel.k)).astype(np.int8)
    scale = rng.uniform(0.5, 1.5, (kernel.n, kernel.groups)).astype(np.float32)
    bias = rng.standard_normal(kernel.n).astype(np.float32)
    spread = np.repeat(scale.astype(np.float64), group, axis=1)[:, : kernel.k]
    expected = _real(x) @ (weight * spread).T + bias
    params = LayerParams(weight, bias, scale)
    return Trial(kernel, x, params, expected, _FLOAT_TOLERANCE * float(np.abs(expected).max()))


def _max_pool(dtype: DType, bits: int, rng: np.random.Generator) -> list[Trial]:
    del bits  # no weights
    kernel = MaxPool(5, 5, 24, 3, 2, 1, dtype)
    x = _draw(rng, kernel.input_shape, dtype)
    image = x.astype(np.float64).reshape(5, 5, -1)
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
    expected = windows[::2, ::2].max(axis=(-2, -1)).reshape(-1, x.shape[1])
    return [Trial(kernel, x, LayerParams(), expected, 0.0)]


def _pool(dtype: DType, bits: int, rng: np.random.Generator) -> list[Trial]:
    del bits  # no weights
    kernel = GlobalPool(9, 24, dtype, dtype)
    x = _draw(rng, kernel.input_shape, dtype)
    params = LayerParams(input=_INPUT, output=_OUTPUT)
    return [_plain(kernel, x, _real(x).mean(axis=0, keepdims=True), params)]


def _squeeze_excite(dtype: DType, bits: int, rng: np.random.Generator) -> list[Trial]:
    del bits  # its weights are float32
    kernel = SqueezeExcite(9, 24, 8, dtype, dtype)
    x = _draw(rng, kernel.input_shape, dtype)
    reduce, expand = (rng.standard_normal(shape).astype(np.float32) for shape in ((8, 24), (24, 8)))
    params = LayerParams(
        weight=reduce,
        bias=np.zeros(8, np.float32),
        expand_weight=expand,
        expand_bias=np.zeros(24, np.float32),
        input=_INPUT,
        output=_OUTPUT,
    )
    real = _real(x)
    hidden = np.maximum(real.mean(axis=0) @ reduce.T.astype(np.float64), 0)
    gate = np.clip(hidden @ expand.T.astype(np.float64) / 6 + 0.5, 0, 1)
    return [_plain(kernel, x, real * gate, params)]


def _attention(dtype: DType, bits: int, rng: np.random.Generator) -> list[Trial]:
    del bits  # no weights
    # 2 heads over 9 pixels; the values, of 24 channels each, come from a tensor of their own.
    queries, values, pixels = 32, 48, 9
    x, v = (_draw(rng, (pixels, c), dtype) for c in (2 * queries + values, values))
    bias = rng.standard_normal((2, pixels, pixels)).astype(np.float32)
    kernel = Attention(
        pixels, pixels, 2, 2, 16, 24, 0.25, False, x.shape[1], 0, x.shape[1], queries, values, 0,
        bias=True, activation=Activation.HARDSWISH,
    )  # fmt: skip
    q, k, wide = (
        _real(part).reshape(pixels, 2, -1).transpose(1, 0, 2)  # [heads, pixels, d]
        for part in (x[:, :queries], x[:, queries : 2 * queries], v)
    )
    powers = np.exp(kernel.scale * q @ k.transpose(0, 2, 1) + bias)
    out = powers / powers.sum(axis=2, keepdims=True) @ wide
    flat = out.transpose(1, 0, 2).reshape(pixels, values)
    real = flat * np.clip(flat / 6 + 0.5, 0, 1)
    split = Copy(x.shape, pixels, values, (pixels, values), (x.shape[1], 1), 2 * queries)
    return [
        _plain(kernel, x, real, LayerParams())._replace(others=(x, v, bias)),
        _plain(split, x, _real(x[:, 2 * queries :]), LayerParams()),
    ]


def _layer_norm(dtype: DType, bits: int, rng: np.random.Generator) -> list[Trial]:
    del bits  # its weights are float32
    kernel = Norm(9, 24, LAYER_NORM_EPSILON, True, dtype, dtype)
    x = _draw(rng, kernel.input_shape, dtype)
    gain, shift = (rng.standard_normal(24).astype(np.float32) for _ in range(2))
    wide = _real(x)
    centred = wide - wide.mean(axis=1, keepdims=True)
    variance = np.square(centred).mean(axis=1, keepdims=True)
    real = centred / np.sqrt(variance + kernel.epsilon) * gain + shift
    return [_plain(kernel, x, real, LayerParams(gain, shift))]


_TRIALS: dict[Operator, Callable[[DType, int, np.random.Generator], list[Trial]]] = {
    Operator.CONV: _conv,
    Operator.DEPTHWISE_CONV: _depthwise,
    Operator.SQUEEZE_EXCITE: _squeeze_excite,
    Operator.MAX_POOL: _max_pool,
    Operator.GLOBAL_POOL: _pool,
    Operator.LINEAR: _linear,
    Operator.ATTENTION: _attention,
    Operator.LAYER_NORM: _layer_norm,
}
