"""Dense k x k convolution as an implicit matrix product, also the stem on the network's input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from compilers.errors import KernelError
from compilers.kernels.base import DType, LayerParams, TiledKernel
from compilers.kernels.conv_code import BorderedCode, ClippedCode
from compilers.kernels.epilogue import Combine, Epilogue, check_choice, layer_epilogue
from compilers.kernels.gemm import matrix_constants, product_tiles
from compilers.kernels.nibbles import check_weight_bits
from compilers.kernels.packing import checked, pad_channels
from compilers.kernels.tiling import Tile, out_size
from compilers.kernels.winograd import saves_products, transform_weight
from compilers.kernels.winograd_code import WinogradCode
from spaces.layer_spec import Activation

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tvm import tirx

    from compilers.targets import Isa


@dataclass(frozen=True)
class Conv(TiledKernel):
    """`out = epilogue(conv2d(x, weight, stride, padding) + bias)`, groups = 1.

    Arguments of the function: x, [residual,] packed weight, start, [scale, factors, zeros,]
    output. A uint8 input selects exact integer arithmetic on int8 weights.

    Attributes:
        height: of the input, pixels.
        width: of the input, pixels.
        in_channels: a multiple of 4 when the input is uint8.
        out_channels: a multiple of 8 when there is a residual.
        kernel: side of the window, pixels.
        stride: step of the window, pixels.
        input_layout: `nhwc` ([H * W, C]) or `nchw` ([1, C, H, W] float32, a network's input).
        combine: whether the residual is added or multiplied.
        weight_bits: width in which integer weights are held, 8 or 4.
        activation_last: whether the activation follows the residual.
        padding: zeros on each side of the image, pixels, at most half a window. None, which an
            explicit `kernel // 2` becomes, stands for that.
    """

    kind: ClassVar[str] = "conv"

    height: int
    width: int
    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    input_layout: Literal["nchw", "nhwc"] = "nhwc"
    input_dtype: DType = "float32"
    activation: Activation = Activation.NONE
    residual: DType | None = None
    output_dtype: DType = "float32"
    combine: Combine = "add"
    activation_last: bool = False
    padding: int | None = None
    weight_bits: int = 8

    def __post_init__(self) -> None:
        check_weight_bits(self.weight_bits, self.input_dtype)
        check_choice("input layout", self.input_layout, ("nchw", "nhwc"))
        channels = (self.in_channels, self.out_channels)
        sizes = (self.height, self.width, *channels, self.kernel, self.stride)
        if min(sizes) < 1:
            raise KernelError(f"convolution of sizes {sizes}: every size must be >= 1")
        if self.padding == self.kernel // 2:
            object.__setattr__(self, "padding", None)
        if not 0 <= self.border <= self.kernel // 2:
            raise KernelError(
                f"convolution with padding {self.border}: must be 0..{self.kernel // 2} "
                f"for kernel {self.kernel}"
            )
        if min(self.out_height, self.out_width) < 1:
            raise KernelError(
                f"window {self.kernel} with padding {self.border} does not fit an image of "
                f"{self.height} x {self.width}"
            )
        if self.input_dtype == "uint8" and self.input_layout == "nchw":
            raise KernelError("a nchw input (the network's own) must be float32")
        if self.input_dtype == "uint8" and self.in_channels % 4:
            raise KernelError(
                f"integer convolution of {self.in_channels} channels: must be a multiple of 4"
            )
        if self.residual is not None and self.out_channels % 8:
            raise KernelError(
                f"convolution with a residual of {self.out_channels} channels: "
                "must be a multiple of 8"
            )
        _ = self.epilogue

    @property
    def epilogue(self) -> Epilogue:
        """What follows the product."""
        return layer_epilogue(
            self.input_dtype,
            self.activation,
            self.residual,
            self.output_dtype,
            self.combine,
            self.activation_last,
        )

    @property
    def border(self) -> int:
        """Zeros on each side of the image, pixels."""
        return self.kernel // 2 if self.padding is None else self.padding

    @property
    def out_height(self) -> int:
        """Pixels."""
        return out_size(self.height, self.kernel, self.stride, self.border)

    @property
    def out_width(self) -> int:
        """Pixels."""
        return out_size(self.width, self.kernel, self.stride, self.border)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[H * W, C] or [1, C, H, W]."""
        if self.input_layout == "nchw":
            return (1, self.in_channels, self.height, self.width)
        return (self.height * self.width, self.in_channels)

    @property
    def output_shape(self) -> tuple[int, int]:
        """[out height * out width, out channels]."""
        return (self.out_height * self.out_width, self.out_channels)

    def constants(self, isa: Isa, params: LayerParams) -> tuple[NDArray[Any], ...]:
        """See `Kernel.constants`. `params.weight` is [O, I, k, k]."""
        weight = params.weight
        shape = (self.out_channels, self.in_channels, self.kernel, self.kernel)
        if weight is not None:
            if weight.shape != shape:
                raise KernelError(f"weight is {list(weight.shape)}; the kernel takes {list(shape)}")
            # The reduction walks the input as it lies in memory.
            if self.input_layout == "nhwc":
                weight = weight.transpose(0, 2, 3, 1)
            weight = weight.reshape(self.out_channels, -1)
        depth = self.kernel**2 * self.in_channels
        if saves_products(self):
            fold = self.epilogue.fold(params)
            weight = checked("weight", params.weight, shape, np.float32) * fold
            bias = checked("bias", params.bias, shape[:1], np.float32) * fold
            lanes = isa.vector_lanes
            packed = transform_weight(weight, lanes)
            return packed, pad_channels(bias, lanes), *self.epilogue.scalars(params)
        matrix = (self.out_channels, depth)
        return matrix_constants(isa, self.epilogue, weight, matrix, params, self.weight_bits)

    def candidates(self, isa: Isa) -> tuple[Tile, ...]:
        """See `Kernel.candidates`."""
        if saves_products(self):
            return ()
        return product_tiles(
            isa, self.out_width, self.out_channels, self.input_dtype, self.weight_bits
        )

    def prim_func(self, isa: Isa, tile: Tile | None = None) -> tirx.PrimFunc:
        """See `TiledKernel.prim_func`."""
        if saves_products(self):
            return WinogradCode(self, isa).build()
        if self.input_dtype == "float32" and self.input_layout == "nhwc":
            return ClippedCode(self, isa, tile).build()
        return BorderedCode(self, isa, tile).build()
