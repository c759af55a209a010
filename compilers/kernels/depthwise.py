"""Depthwise k x k convolution: one window per channel, channels across the vector lanes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from compilers.errors import KernelError
from compilers.intrinsics import WidenedDot, integer_dot
from compilers.kernels.base import DType, LayerParams, TiledKernel
from compilers.kernels.depthwise_code import DepthwiseCode, FloatCode
from compilers.kernels.depthwise_integer import PIXELS, InterleavedCode, PairedCode
from compilers.kernels.epilogue import Epilogue, layer_epilogue, require
from compilers.kernels.nibbles import check_weight_bits, held_weight
from compilers.kernels.packing import checked, integer_bias
from compilers.kernels.tiling import Tile, out_size
from spaces.layer_spec import Activation

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tvm import tirx

    from compilers.targets import Isa


@dataclass(frozen=True)
class Depthwise(TiledKernel):
    """`out[..., c] = epilogue(window(x[..., c]) * weight[c] + bias[c])`, padding `kernel // 2`.

    Arguments of the function: x, weight, start, [scale, factors, zeros,] output. A uint8 input
    selects exact integer arithmetic on int8 weights.

    Attributes:
        height: of the input, pixels.
        width: of the input, pixels.
        channels: a multiple of 8.
        kernel: side of the window, odd.
        stride: 1 or 2.
        weight_bits: width in which integer weights are held, 8 or 4.
    """

    kind: ClassVar[str] = "depthwise"

    height: int
    width: int
    channels: int
    kernel: int
    stride: int
    input_dtype: DType = "float32"
    activation: Activation = Activation.NONE
    output_dtype: DType = "float32"
    weight_bits: int = 8

    def __post_init__(self) -> None:
        check_weight_bits(self.weight_bits, self.input_dtype)
        if min(self.height, self.width) < 1:
            raise KernelError(f"depthwise image of {self.height} x {self.width}: must be >= 1")
        if self.channels < 8 or self.channels % 8:
            raise KernelError(f"depthwise of {self.channels} channels: must be a multiple of 8")
        if self.kernel < 1 or self.kernel % 2 == 0 or self.stride not in (1, 2):
            raise KernelError(
                f"depthwise with kernel {self.kernel} and stride {self.stride}: "
                "the kernel must be odd, the stride 1 or 2"
            )
        _ = self.epilogue

    @property
    def epilogue(self) -> Epilogue:
        """What follows the window."""
        return layer_epilogue(self.input_dtype, self.activation, None, self.output_dtype)

    @property
    def out_height(self) -> int:
        """Pixels."""
        return out_size(self.height, self.kernel, self.stride, self.kernel // 2)

    @property
    def out_width(self) -> int:
        """Pixels."""
        return out_size(self.width, self.kernel, self.stride, self.kernel // 2)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[H * W, C]."""
        return (self.height * self.width, self.channels)

    @property
    def output_shape(self) -> tuple[int, int]:
        """[out height * out width, C]."""
        return (self.out_height * self.out_width, self.channels)

    def constants(self, isa: Isa, params: LayerParams) -> tuple[NDArray[Any], ...]:
        """See `Kernel.constants`. `params.weight` is [C, 1, k, k]."""
        k, channels = self.kernel, self.channels
        shape, tail = (channels, 1, k, k), self.epilogue
        fold = tail.fold(params)
        if not tail.integer:
            taps = checked("weight", params.weight, shape, np.float32).reshape(channels, -1) * fold
            bias = checked("bias", params.bias, (channels,), np.float32) * fold
            return np.ascontiguousarray(taps.T), bias, *tail.scalars(params)
        weight = checked("weight", params.weight, shape, np.int8)
        start = checked("bias", params.bias, (channels,), np.int32)
        dot = integer_dot(isa)
        zero_point = require("input", params.input).zero_point - dot.offset
        scale = checked("scale", params.scale, (channels,), np.float32) * fold
        start = integer_bias(weight, start, zero_point)
        windows = weight.reshape(channels, k, k)
        if dot.group == PIXELS:
            packed: NDArray[Any] = _pack_interleaved(windows, self.lanes(isa))
        else:
            packed = _pack_pairs(windows)
        return held_weight(packed, self.weight_bits), start, scale, *tail.scalars(params)

    def lanes(self, isa: Isa) -> int:
        """Vector length: the registers', or 8 when there are only 8 channels."""
        return min(isa.vector_lanes, 8 if self.channels < isa.vector_lanes else 16)

    def candidates(self, isa: Isa) -> tuple[Tile, ...]:
        """See `Kernel.candidates`."""
        return self._code(isa).tiles(self, isa)

    def prim_func(self, isa: Isa, tile: Tile | None = None) -> tirx.PrimFunc:
        """See `TiledKernel.prim_func`."""
        return self._code(isa)(self, isa, tile).build()

    def _code(self, isa: Isa) -> type[DepthwiseCode]:
        if self.input_dtype == "float32":
            return FloatCode
        return InterleavedCode if integer_dot(isa).group == PIXELS else PairedCode


def _pack_interleaved(weight: NDArray[np.int8], lanes: int) -> NDArray[np.int8]:
    """[C, k, k] -> [ceil(C / lanes), k, ceil(k / 4), lanes * 4].

    The last axis holds, per channel, four horizontally adjacent taps (zeros behind the window).
    The last block of channels ends at C, and overlaps its neighbour when C is no multiple of
    `lanes`.
    """
    channels, k, _ = weight.shape
    padded = np.pad(weight, ((0, 0), (0, 0), (0, -k % PIXELS)))
    blocks = [
        padded[first : first + lanes]
        for first in (min(c, channels - lanes) for c in range(0, channels, lanes))
    ]
    grouped = np.stack(blocks).reshape(len(blocks), lanes, k, -1, PIXELS)
    return np.ascontiguousarray(
        grouped.transpose(0, 2, 3, 1, 4).reshape(len(blocks), k, -1, lanes * PIXELS)
    )


def _pack_pairs(weight: NDArray[np.int8]) -> NDArray[np.int16]:
    """[C, k, k] -> [k, ceil(k / 2), C * 2]: two horizontally adjacent taps of every channel.

    The tap behind the window is zero.
    """
    channels, k, _ = weight.shape
    padded = np.pad(weight.astype(np.int16), ((0, 0), (0, 0), (0, 1)))
    grouped = padded.reshape(channels, k, -1, WidenedDot.group)
    return np.ascontiguousarray(grouped.transpose(1, 2, 0, 3).reshape(k, -1, 2 * channels))
