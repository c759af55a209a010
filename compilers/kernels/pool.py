"""Pooling over k x k windows: maxima and means of each channel, without any constants.

Windows are clipped to the image, so that pixels outside it neither win nor count. A uint8 output
has the quantisation of its input.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from compilers.errors import KernelError
from compilers.intrinsics import round_to_int
from compilers.kernels.base import DTYPES, DType, Kernel, LayerParams
from compilers.kernels.emitter import (
    Buffer,
    Emitter,
    Expr,
    Index,
    broadcast,
    cast,
    load,
    maximum,
    splat,
)
from compilers.kernels.epilogue import check_choice
from compilers.kernels.tiling import ColumnRun, column_runs, out_size, thread_chunks
from compilers.kernels.window import window_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tvm import tirx

    from compilers.targets import Isa

_SIDE_BY_SIDE = 4
"""Vectors of one window that are reduced together, to hide the latency of one."""


@dataclass(frozen=True)
class _WindowPool(Kernel):
    """`out[i, j, c] = reduce(x[i * stride - padding ..., j * stride - padding ..., c])`.

    Arguments of the function: x, output.

    Attributes:
        height: of the input, pixels.
        width: of the input, pixels.
        channels: any number.
        kernel: side of the window, pixels.
        stride: step of the window, pixels.
        padding: pixels outside the image on each side, at most half a window.
        dtype: of the input and the output.
    """

    height: int
    width: int
    channels: int
    kernel: int
    stride: int
    padding: int = 0
    dtype: DType = "float32"

    def __post_init__(self) -> None:
        sizes = (self.height, self.width, self.channels, self.kernel, self.stride)
        if min(sizes) < 1:
            raise KernelError(f"pooling of sizes {sizes}: every size must be >= 1")
        if not 0 <= self.padding <= self.kernel // 2:
            raise KernelError(
                f"pooling with padding {self.padding}: must be 0..{self.kernel // 2} "
                f"for kernel {self.kernel}"
            )
        if min(self.output_size) < 1:
            raise KernelError(
                f"pooling window {self.kernel} with padding {self.padding} does not fit an image "
                f"of {self.height} x {self.width}"
            )
        check_choice("dtype", self.dtype, DTYPES)

    @property
    def input_dtype(self) -> DType:
        """Element type of `x`."""
        return self.dtype

    @property
    def output_dtype(self) -> DType:
        """Element type of the output."""
        return self.dtype

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of the output, pixels."""
        window = (self.kernel, self.stride, self.padding)
        return out_size(self.height, *window), out_size(self.width, *window)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[H * W, C]."""
        return (self.height * self.width, self.channels)

    @property
    def output_shape(self) -> tuple[int, int]:
        """[out height * out width, C]."""
        height, width = self.output_size
        return (height * width, self.channels)

    def constants(self, isa: Isa, params: LayerParams) -> tuple[NDArray[Any], ...]:
        """None."""
        del isa, params
        return ()

    def prim_func(self, isa: Isa) -> tirx.PrimFunc:
        """See `Kernel.prim_func`."""
        return _PoolCode(self, isa).build()

    @abstractmethod
    def sums(self) -> str:
        """Element type in which windows are reduced."""

    @abstractmethod
    def start(self, lanes: int) -> Expr:
        """The neutral element of the reduction."""

    @abstractmethod
    def reduce(self, total: Expr, value: Expr) -> Expr:
        """The reduction with one more pixel."""

    @abstractmethod
    def finish(self, em: Emitter, total: Expr, count: Expr, lanes: int) -> Expr:
        """What is stored, in the output's element type, for a window of `count` pixels (int32)."""


@dataclass(frozen=True)
class MaxPool(_WindowPool):
    """The largest value of each window; see `_WindowPool` for the fields."""

    kind: ClassVar[str] = "max_pool"

    def sums(self) -> str:
        """The input's."""
        return self.dtype

    def start(self, lanes: int) -> Expr:
        """The smallest value."""
        return splat(0 if self.dtype == "uint8" else float("-inf"), lanes, self.dtype)

    def reduce(self, total: Expr, value: Expr) -> Expr:
        """See `_WindowPool.reduce`."""
        return maximum(total, value)

    def finish(self, em: Emitter, total: Expr, count: Expr, lanes: int) -> Expr:
        """See `_WindowPool.finish`."""
        del em, count, lanes
        return total


@dataclass(frozen=True)
class AvgPool(_WindowPool):
    """The mean of each window's pixels inside the image; see `_WindowPool` for the fields.

    The sum of uint8 is exact, the mean rounded half to even.
    """

    kind: ClassVar[str] = "avg_pool"

    def sums(self) -> str:
        """int32 for uint8."""
        return "int32" if self.dtype == "uint8" else "float32"

    def start(self, lanes: int) -> Expr:
        """Zero."""
        return splat(0, lanes, self.sums())

    def reduce(self, total: Expr, value: Expr) -> Expr:
        """See `_WindowPool.reduce`."""
        return total + value

    def finish(self, em: Emitter, total: Expr, count: Expr, lanes: int) -> Expr:
        """See `_WindowPool.finish`."""
        pixels = broadcast(cast(count, "float32", 1), lanes)
        if self.dtype == "float32":
            return total / pixels
        mean = em.let(cast(total, "float32", lanes) / pixels)
        return cast(round_to_int(mean, lanes), "uint8", lanes)


class _PoolCode:
    """Emits one pool: rows of output pixels, pixels, groups of channel vectors, the window."""

    def __init__(self, kernel: _WindowPool, isa: Isa) -> None:
        self.kernel = kernel
        self.isa = isa
        self.em = Emitter()

    def build(self) -> Any:
        kernel, em = self.kernel, self.em
        self.x = em.argument("x", kernel.input_shape, kernel.dtype)
        self.out = em.argument("out", kernel.output_shape, kernel.dtype)
        self.window = (kernel.kernel, kernel.stride, kernel.padding)
        height, width = kernel.output_size
        runs = column_runs(width, kernel.width, *self.window, 1)
        bytes_ = 4 if kernel.sums() != "uint8" else 1
        self.lanes = self.isa.vector_lanes * 4 // bytes_
        cycles = height * width * kernel.channels / self.lanes * kernel.kernel**2
        chunks = thread_chunks(self.isa, cycles, height)

        def row(oh: Index) -> None:
            rows = window_rows(em, oh, kernel.height, *self.window)
            for run in runs:

                def pixel(i: Index, run: ColumnRun = run) -> None:
                    self.pixel(oh, run.first + i, run, rows)

                em.loop(run.tiles, pixel)

        def chunk(i: Index) -> None:
            first, count = em.share(height, i, chunks)
            em.loop(count, row, start=first)

        em.parallel(chunks, chunk)
        return em.function(kernel.symbol(self.isa))

    def pixel(self, oh: Index, ow: Index, run: ColumnRun, rows: tuple[Index, Index]) -> None:
        """All channels of one output pixel."""
        kernel, em = self.kernel, self.em
        first, count = rows
        columns = [
            kw
            for kw in range(kernel.kernel)
            if run.inside or 0 <= ow * kernel.stride - kernel.padding + kw < kernel.width
        ]
        group = _SIDE_BY_SIDE * self.lanes

        def vectors(channel: Index, width: int) -> None:
            lanes = min(width, self.lanes)
            places = [channel + i for i in range(0, width, lanes)]
            totals = [em.register(lanes, kernel.sums()) for _ in places]
            for total in totals:
                em.store(total, [0], kernel.start(lanes), lanes)

            def window_row(kh: Index) -> None:
                line = (oh * kernel.stride - kernel.padding + kh) * kernel.width
                self.window_row(line + ow * kernel.stride - kernel.padding, columns, places, totals)

            em.loop(count, window_row, start=first)
            for place, total in zip(places, totals, strict=True):
                value = load(total, [0], lanes)
                value = kernel.finish(em, value, count * len(columns), lanes)
                em.store(self.out, [oh * kernel.output_size[1] + ow, place], value, lanes)

        em.pieces(kernel.channels, group, vectors)

    def window_row(
        self,
        pixel: Index,
        columns: Sequence[int],
        places: Sequence[Index],
        totals: Sequence[Buffer],
    ) -> None:
        """Reduce one row of the window into `totals`."""
        kernel, em = self.kernel, self.em
        for kw in columns:
            for place, total in zip(places, totals, strict=True):
                lanes = int(total.shape[0])
                value = load(self.x, [pixel + kw, place], lanes)
                if kernel.sums() != kernel.dtype:
                    value = cast(value, kernel.sums(), lanes)
                em.store(total, [0], kernel.reduce(load(total, [0], lanes), value), lanes)
