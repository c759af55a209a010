"""Movement of data: strided copies, concatenation, embedding."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from tvm import tirx

from compilers.errors import KernelError
from compilers.kernels.base import DTYPES, DType, Kernel, LayerParams
from compilers.kernels.emitter import Buffer, Emitter, Expr, Index, cast, load, maximum, minimum
from compilers.kernels.epilogue import check_choice
from compilers.kernels.packing import checked

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from compilers.targets import Isa


@dataclass(frozen=True)
class Copy(Kernel):
    """A strided read of a tensor, `numpy.lib.stride_tricks.as_strided`, into a dense one.

    Arguments of the function: x, output.

    Attributes:
        source: shape of the tensor that is read.
        rows: of the output.
        columns: of the output; rows * columns is the product of the sizes.
        sizes: of the digits by which the output counts, the most significant first.
        strides: of the same digits in the source, elements.
        offset: of the first element in the source.
        dtype: of both tensors.
    """

    kind: ClassVar[str] = "copy"

    source: tuple[int, ...]
    rows: int
    columns: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    dtype: DType = "float32"

    def __post_init__(self) -> None:
        check_choice("dtype", self.dtype, DTYPES)
        if prod(self.sizes) != self.rows * self.columns or len(self.sizes) != len(self.strides):
            raise KernelError(
                f"copy of sizes {self.sizes} and strides {self.strides} "
                f"into {self.rows} x {self.columns}"
            )
        last = sum((s - 1) * t for s, t in zip(self.sizes, self.strides, strict=True))
        if min((*self.sizes, *self.strides, self.offset), default=0) < 0 or (
            self.offset + last >= prod(self.source)
        ):
            raise KernelError(f"copy of elements outside a tensor of {self.source}")

    @property
    def input_dtype(self) -> DType:
        """Of both tensors."""
        return self.dtype

    @property
    def output_dtype(self) -> DType:
        """Of both tensors."""
        return self.dtype

    @property
    def input_shape(self) -> tuple[int, ...]:
        """As the source's."""
        return self.source

    @property
    def output_shape(self) -> tuple[int, int]:
        """[rows, columns]."""
        return (self.rows, self.columns)

    def constants(self, isa: Isa, params: LayerParams) -> tuple[NDArray[Any], ...]:
        """See `Kernel.constants`: none."""
        del isa, params
        return ()

    def prim_func(self, isa: Isa) -> tirx.PrimFunc:
        """See `Kernel.prim_func`."""
        em = Emitter()
        x = em.argument("x", self.source, self.dtype)
        out = em.argument("out", self.output_shape, self.dtype)
        # An index beyond the last axis counts on through a row-major tensor.
        first = [0] * (len(self.source) - 1)
        digits = list(zip(self.sizes, self.strides, strict=True)) or [(1, 1)]
        width = isa.vector_lanes * (4 if self.dtype == "uint8" else 1)

        def level(depth: int, read: Index, written: Index) -> None:
            size, stride = digits[depth]
            if depth == len(digits) - 1:

                def piece(start: Index, lanes: int) -> None:
                    index = [*first, read + start * stride]
                    value = _strided(x, index, stride, lanes)
                    em.store(out, [0, written + start], value, lanes)

                em.pieces(size, width, piece)
                return
            inner = prod(self.sizes[depth + 1 :])
            em.loop(size, lambda i: level(depth + 1, read + i * stride, written + i * inner))

        level(0, self.offset, 0)
        return em.function(self.symbol(isa))


def _strided(x: Buffer, index: list[Index], stride: int, lanes: int) -> Expr:
    if lanes == 1 or stride == 1:
        return load(x, index, lanes)
    if stride == 0:
        return tirx.Broadcast(load(x, index, 1), lanes)
    return tirx.BufferLoad(x, [*index[:-1], tirx.Ramp(index[-1], stride, lanes)])


@dataclass(frozen=True)
class Concat(Kernel):
    """Tensors behind each other along rows or columns.

    Arguments of the function: x for each of `sizes`, output.

    Attributes:
        sizes: rows (columns) of each tensor.
        other: columns (rows) of all of them.
        axis: 0 for rows, 1 for columns.
        dtype: of all tensors.
    """

    kind: ClassVar[str] = "concat"

    sizes: tuple[int, ...]
    other: int
    axis: int = 0
    dtype: DType = "float32"

    def __post_init__(self) -> None:
        check_choice("dtype", self.dtype, DTYPES)
        if self.axis not in (0, 1) or min((*self.sizes, self.other), default=0) < 1:
            raise KernelError(
                f"concatenation of {self.sizes} along axis {self.axis}, {self.other} wide: every "
                "size must be >= 1, the axis 0 or 1"
            )

    @property
    def input_dtype(self) -> DType:
        """Of all tensors."""
        return self.dtype

    @property
    def output_dtype(self) -> DType:
        """Of all tensors."""
        return self.dtype

    def part_shape(self, part: int) -> tuple[int, int]:
        """[rows, columns] of one operand."""
        size = self.sizes[part]
        return (size, self.other) if self.axis == 0 else (self.other, size)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of the first operand."""
        return self.part_shape(0)

    @property
    def output_shape(self) -> tuple[int, int]:
        """[rows, columns]."""
        total = sum(self.sizes)
        return (total, self.other) if self.axis == 0 else (self.other, total)

    def constants(self, isa: Isa, params: LayerParams) -> tuple[NDArray[Any], ...]:
        """See `Kernel.constants`: none."""
        del isa, params
        return ()

    def prim_func(self, isa: Isa) -> tirx.PrimFunc:
        """See `Kernel.prim_func`."""
        em = Emitter()
        parts = [
            em.argument(f"x{i}", self.part_shape(i), self.dtype) for i in range(len(self.sizes))
        ]
        out = em.argument("out", self.output_shape, self.dtype)
        width = isa.vector_lanes * (4 if self.dtype == "uint8" else 1)
        done = 0
        for i, part in enumerate(parts):
            rows, columns = self.part_shape(i)
            first = (done, 0) if self.axis == 0 else (0, done)
            done += self.sizes[i]

            def row(r: Index, part: Buffer = part, columns: int = columns,
                    first: tuple[int, int] = first) -> None:  # fmt: skip
                def piece(column: Index, lanes: int) -> None:
                    value = load(part, [r, column], lanes)
                    em.store(out, [first[0] + r, first[1] + column], value, lanes)

                em.pieces(columns, width, piece)

            em.loop(rows, row)
        return em.function(self.symbol(isa))


@dataclass(frozen=True)
class Embedding(Kernel):
    """`out[t] = weight[x[0, t]]`; indices outside the table read its first or last row.

    Arguments of the function: x [1, tokens] int64, weight [vocabulary, channels], output.
    """

    kind: ClassVar[str] = "embedding"
    input_dtype: ClassVar[str] = "int64"  # type: ignore[assignment]
    output_dtype: ClassVar[DType] = "float32"

    tokens: int
    vocabulary: int
    channels: int

    def __post_init__(self) -> None:
        sizes = (self.tokens, self.vocabulary, self.channels)
        if min(sizes) < 1:
            raise KernelError(f"embedding of sizes {sizes}: every size must be >= 1")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[1, tokens]."""
        return (1, self.tokens)

    @property
    def output_shape(self) -> tuple[int, int]:
        """[tokens, channels]."""
        return (self.tokens, self.channels)

    def constants(self, isa: Isa, params: LayerParams) -> tuple[NDArray[Any], ...]:
        """See `Kernel.constants`. `params.weight` is [vocabulary, channels]."""
        del isa
        shape = (self.vocabulary, self.channels)
        return (checked("embedding", params.weight, shape, np.float32),)

    def prim_func(self, isa: Isa) -> tirx.PrimFunc:
        """See `Kernel.prim_func`."""
        em = Emitter()
        x = em.argument("x", self.input_shape, "int64")
        weight = em.argument("weight", (self.vocabulary, self.channels))
        out = em.argument("out", self.output_shape)

        def token(t: Index) -> None:
            # Memory beside the table is never read, whatever the tokens are.
            last = tirx.const(self.vocabulary - 1, "int64")
            place = maximum(minimum(load(x, [0, t], 1), last), tirx.const(0, "int64"))
            row = em.let(cast(place, "int32", 1))

            def piece(channel: Index, lanes: int) -> None:
                em.store(out, [t, channel], load(weight, [row, channel], lanes), lanes)

            em.pieces(self.channels, isa.vector_lanes, piece)

        em.loop(self.tokens, token)
        return em.function(self.symbol(isa))
