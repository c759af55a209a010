"""What a device really executes: every operator in every precision, run and compared with NumPy.

One small kernel per operator and precision (a few for convolutions, which come as several
templates). Integer layers write float32 with scales of 1, so that their accumulators are seen and
must be exact; pooling and squeeze-and-excite may round to the neighbouring step.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from compilers.build import link
from compilers.errors import MismatchError
from compilers.kernel_library import KernelLibrary, compile_kernel
from compilers.kernels import Conv, Depthwise, Dequantize, Gemm, GlobalPool, Quantize, SqueezeExcite
from compilers.kernels.base import DType, Kernel, LayerParams, QParams
from compilers.targets import Isa
from spaces.layer_spec import Operator

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
    """

    kernel: Kernel
    x: Array
    params: LayerParams
    expected: FloatArray
    allowed: float


def probe(operator: Operator, scheme: str, isa: Isa) -> None:
    """Compile and run the kernels of one operator in one precision, in this process.

    Args:
        operator: The operator.
        scheme: `fp32` or `w8a8`.
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
    function = compile_kernel(kernel, isa)[kernel.symbol(isa)]
    out = tvm.runtime.tensor(np.zeros(kernel.output_shape, kernel.output_dtype))
    arguments = [trial.x, *kernel.constants(isa, trial.params)]
    function(*(tvm.runtime.tensor(np.ascontiguousarray(array)) for array in arguments), out)
    found: Array = out.numpy()
    return found


def write_trials(
    operator: Operator, scheme: str, isa: Isa, kernels: KernelLibrary, folder: Path
) -> list[dict[str, Any]]:
    """Compile the kernels of one operator in one precision, to be run elsewhere.

    Args:
        operator: The operator.
        scheme: `fp32` or `w8a8`.
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
        link(str(library), [str(kernels.object_file(kernel, isa))])
        arrays = [trial.x, *kernel.constants(isa, trial.params), trial.expected]
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
    """The kernels that carry an operator in a precision, with seeded random data."""
    dtype: DType = "float32" if scheme == "fp32" else "uint8"
    rng = np.random.default_rng(0)
    return _TRIALS[operator](dtype, rng)


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
    rng: np.random.Generator,
) -> Trial:
    """A layer with weights [O, I, k, k], or [C, 1, k, k] of a depthwise convolution."""
    integer = kernel.input_dtype == "uint8"
    x = _draw(rng, kernel.input_shape, kernel.input_dtype)
    count = weight_shape[0]
    weight: Array
    bias: NDArray[Any]
    if integer:
        weight = rng.integers(-127, 128, weight_shape).astype(np.int8)
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


def _conv(dtype: DType, rng: np.random.Generator) -> list[Trial]:
    dense = Conv(5, 5, 8, 24, 3, 2, "nhwc", dtype)
    pointwise = Gemm(9, 16, 24, dtype)
    found = [
        _layer(dense, (5, 5), (24, 8, 3, 3), 2, rng),
        _layer(pointwise, (3, 3), (24, 16, 1, 1), 1, rng),
    ]
    if dtype == "uint8":
        params = LayerParams(input=_INPUT, output=_OUTPUT)
        x, q = _draw(rng, (3, 24), "float32"), _draw(rng, (3, 24), "uint8")
        found.append(_plain(Quantize(3, 24), x, _real(x), params))
        found.append(_plain(Dequantize(3, 24), q, _real(q), params))
    return found


def _depthwise(dtype: DType, rng: np.random.Generator) -> list[Trial]:
    return [_layer(Depthwise(5, 5, 24, 3, 1, dtype), (5, 5), (24, 1, 3, 3), 1, rng)]


def _linear(dtype: DType, rng: np.random.Generator) -> list[Trial]:
    return [_layer(Gemm(1, 16, 10, dtype), (1, 1), (10, 16, 1, 1), 1, rng)]


def _pool(dtype: DType, rng: np.random.Generator) -> list[Trial]:
    kernel = GlobalPool(9, 24, dtype, dtype)
    x = _draw(rng, kernel.input_shape, dtype)
    params = LayerParams(input=_INPUT, output=_OUTPUT)
    return [_plain(kernel, x, _real(x).mean(axis=0, keepdims=True), params)]


def _squeeze_excite(dtype: DType, rng: np.random.Generator) -> list[Trial]:
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


_TRIALS: dict[Operator, Callable[[DType, np.random.Generator], list[Trial]]] = {
    Operator.CONV: _conv,
    Operator.DEPTHWISE_CONV: _depthwise,
    Operator.SQUEEZE_EXCITE: _squeeze_excite,
    Operator.GLOBAL_POOL: _pool,
    Operator.LINEAR: _linear,
}
