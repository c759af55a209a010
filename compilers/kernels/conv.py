"""Dense k x k convolution as an implicit matrix product, also the stem on the network's input."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from compilers.errors import KernelError
from compilers.intrinsics import integer_dot
from compilers.kernels.base import DType, Kernel, LayerParams
from compilers.kernels.emitter import Emitter, Expr, Index
from compilers.kernels.epilogue import Epilogue, EpilogueCode, check_choice, layer_epilogue
from compilers.kernels.gemm import matrix_constants
from compilers.kernels.nibbles import check_weight_bits
from compilers.kernels.register_tile import Operands, RegisterTile
from compilers.kernels.tiling import (
    Block,
    ColumnRun,
    block_runs,
    channel_blocks,
    column_runs,
    matrix_tile,
    out_size,
)
from compilers.kernels.window import padded_copy, window_rows
from spaces.layer_spec import Activation

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tvm import tirx

    from compilers.targets import Isa

_UNROLLED_CHANNELS = 4
"""With no more input channels than this (the stem), taps and channels are unrolled."""


@dataclass(frozen=True)
class Conv(Kernel):
    """`out = epilogue(conv2d(x, weight, padding=kernel // 2) + bias)`, groups = 1.

    Arguments of the function: x, [residual,] packed weight, start, [scale, factors, zeros,]
    output. A uint8 input selects exact integer arithmetic on int8 weights.

    Attributes:
        height: of the input, pixels.
        width: of the input, pixels.
        in_channels: a multiple of 4 when the input is uint8.
        out_channels: a multiple of 8 when there is a residual.
        kernel: side of the window, odd.
        stride: 1 or 2.
        input_layout: `nhwc` ([H * W, C]) or `nchw` ([1, C, H, W] float32, a network's input).
        weight_bits: width in which integer weights are held, 8 or 4.
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
    weight_bits: int = 8

    def __post_init__(self) -> None:
        check_weight_bits(self.weight_bits, self.input_dtype)
        check_choice("input layout", self.input_layout, ("nchw", "nhwc"))
        sizes = (self.height, self.width, self.in_channels, self.out_channels)
        if min(sizes) < 1:
            raise KernelError(f"convolution of sizes {sizes}: every size must be >= 1")
        if self.kernel < 1 or self.kernel % 2 == 0 or self.stride not in (1, 2):
            raise KernelError(
                f"convolution with kernel {self.kernel} and stride {self.stride}: "
                "the kernel must be odd, the stride 1 or 2"
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
        return layer_epilogue(self.input_dtype, self.activation, self.residual, self.output_dtype)

    @property
    def out_height(self) -> int:
        """Pixels."""
        return out_size(self.height, self.kernel, self.stride)

    @property
    def out_width(self) -> int:
        """Pixels."""
        return out_size(self.width, self.kernel, self.stride)

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
            # The reduction runs over rows and columns of the window, then input channels.
            weight = weight.transpose(0, 2, 3, 1).reshape(self.out_channels, -1)
        depth = self.kernel**2 * self.in_channels
        matrix = (self.out_channels, depth)
        return matrix_constants(isa, self.epilogue, weight, matrix, params, self.weight_bits)

    def prim_func(self, isa: Isa) -> tirx.PrimFunc:
        """See `Kernel.prim_func`."""
        return _ConvCode(self, isa).build()


class _ConvCode:
    """Emits one `Conv`: output vectors outside, then rows, tiles of columns, taps, channels.

    float32: taps outside the image are skipped. Integers: the input is copied once with a border
    of its zero point, in the element type of the dot product, and no tap lies outside.
    """

    def __init__(self, kernel: Conv, isa: Isa) -> None:
        self.kernel = kernel
        self.isa = isa
        self.em = Emitter()
        self.dot = integer_dot(isa) if kernel.input_dtype == "uint8" else None

    def build(self) -> Any:
        kernel, em, isa = self.kernel, self.em, self.isa
        blocks = channel_blocks(kernel.out_channels, isa.vector_lanes)
        x = em.argument("x", kernel.input_shape, kernel.input_dtype)
        residual = None
        if kernel.residual is not None:
            residual = em.argument("residual", kernel.output_shape, kernel.residual)
        depth = kernel.kernel**2 * kernel.in_channels
        self.operands = Operands(
            em, len(blocks), depth, isa.vector_lanes, self.dot, kernel.weight_bits
        )
        channels = len(blocks) * isa.vector_lanes
        self.tail = EpilogueCode(em, kernel.epilogue, channels, isa.vector_lanes, residual)
        self.out = em.argument("out", kernel.output_shape, kernel.output_dtype)

        self.border = kernel.kernel // 2 if self.dot else 0
        self.source = x
        if self.dot:
            self.source = padded_copy(
                em,
                x,
                (kernel.height, kernel.width, kernel.in_channels),
                self.border,
                self.tail.input_zero,
                self.dot.activation_dtype,
            )
        cost = 2.0 if self.dot is not None and self.dot.group == 2 else 1.0
        registers = isa.vector_registers - self.operands.weight.registers
        tile = matrix_tile(kernel.out_width, len(blocks), registers, cost)
        in_width = kernel.width + 2 * self.border
        runs = column_runs(
            kernel.out_width, in_width, kernel.kernel, kernel.stride, tile.rows, self.border
        )
        for group in block_runs(blocks, tile.vectors):
            members = blocks[group.first : group.first + group.width]
            em.loop(group.count, partial(self.rows, runs, members))
        return em.function(kernel.symbol(isa))

    def rows(self, runs: list[ColumnRun], blocks: list[Block], group: Index) -> None:
        """All output rows of one group of output vectors."""

        def row(oh: Index) -> None:
            kernel = self.kernel
            taps: tuple[Index, Index] = (0, kernel.kernel)
            if not self.border:
                taps = window_rows(self.em, oh, kernel.height, kernel.kernel, kernel.stride)
            for run in runs:

                def tile(i: Index, run: ColumnRun = run) -> None:
                    ow = run.first + i * run.width
                    self.tile(oh, ow, run, taps, blocks, group * len(blocks))

                self.em.loop(run.tiles, tile)

        self.em.loop(self.kernel.out_height, row)

    def tile(
        self,
        oh: Index,
        ow: Index,
        run: ColumnRun,
        taps: tuple[Index, Index],
        blocks: list[Block],
        shift: Index,
    ) -> None:
        """One register tile: `run.width` output columns from (oh, ow)."""
        kernel, em, operands = self.kernel, self.em, self.operands
        tile = RegisterTile(operands, run.width, blocks, shift, 1)
        steps = kernel.in_channels // operands.group
        pad = kernel.kernel // 2 - self.border

        def tap(kh: Index, kw: Index) -> None:
            ih = oh * kernel.stride - pad + kh
            columns = [(ow + t) * kernel.stride - pad + kw for t in range(run.width)]
            present = [run.inside or 0 <= column < kernel.width for column in columns]

            def channel(c: Index) -> None:
                def activation(t: int) -> Expr | None:
                    return self.activation(ih, columns[t], c) if present[t] else None

                tile.step((kh * kernel.kernel + kw) * steps + c, activation)

            if not any(present):
                return
            if kernel.in_channels <= _UNROLLED_CHANNELS:
                for c in range(steps):
                    channel(c)
            else:
                em.loop(steps, channel)

        def window_row(kh: Index) -> None:
            if run.inside and kernel.in_channels > _UNROLLED_CHANNELS:
                em.loop(kernel.kernel, lambda kw: tap(kh, kw))
            else:
                for kw in range(kernel.kernel):
                    tap(kh, kw)

        first, count = taps
        em.loop(count, window_row, start=first)

        pixel = oh * kernel.out_width + ow
        self.tail.store(self.out, tile.cells(lambda t: pixel + t))

    def activation(self, ih: Index, iw: Index, step: Index) -> Expr:
        """The scalar at one pixel of the source; `step` counts groups of channels."""
        if self.kernel.input_layout == "nchw":
            return self.operands.activation(self.source, [0, step, ih, iw])
        pixel = ih * (self.kernel.width + 2 * self.border) + iw
        channel = step * self.operands.group
        if self.dot:
            return self.operands.activation(
                self.source, [pixel * self.kernel.in_channels + channel]
            )
        return self.operands.activation(self.source, [pixel, channel])
