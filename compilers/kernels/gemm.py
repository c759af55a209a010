"""Matrix product of pixels and channels: 1x1 convolution, and linear layers with one row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from compilers.errors import KernelError
from compilers.intrinsics import IntegerDot, integer_dot
from compilers.kernels.base import DType, LayerParams, TiledKernel
from compilers.kernels.emitter import Emitter, Expr, Index, load
from compilers.kernels.epilogue import Combine, Epilogue, EpilogueCode, layer_epilogue, require
from compilers.kernels.nibbles import check_weight_bits, held_weight, widening
from compilers.kernels.packing import (
    checked,
    integer_bias,
    pack_integer_matrix,
    pack_matrix,
    pad_channels,
)
from compilers.kernels.register_tile import Operands, RegisterTile, Turn
from compilers.kernels.tiling import (
    Block,
    Tile,
    block_runs,
    channel_blocks,
    even_division,
    matrix_tiles,
    row_runs,
    thread_chunks,
)
from spaces.layer_spec import Activation

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tvm import tirx

    from compilers.targets import Isa


_ROWS_PER_WEIGHT = 4
"""Multiplications that take as long as reading a weight from a second-level cache or beyond."""


_NEAR_BYTES = 1 << 20
"""Input that stays in a second-level cache while all weights pass."""


@dataclass(frozen=True)
class Gemm(TiledKernel):
    """`out[m, n] = epilogue(x[m, k] @ weight[n, k].T + bias)`.

    Arguments of the function: x, [residual,] packed weight, start, [scale, factors, zeros,]
    output. A uint8 input selects exact integer arithmetic on int8 weights.

    Attributes:
        m: pixels (rows); 1 for a linear layer at batch 1.
        k: input channels; a multiple of 4 when the input is uint8.
        n: output channels; a multiple of 8 when there is a residual.
        weight_bits: width in which integer weights are held, 8 or 4.
    """

    kind: ClassVar[str] = "gemm"

    m: int
    k: int
    n: int
    input_dtype: DType = "float32"
    activation: Activation = Activation.NONE
    residual: DType | None = None
    output_dtype: DType = "float32"
    combine: Combine = "add"
    activation_last: bool = False
    weight_bits: int = 8

    def __post_init__(self) -> None:
        check_weight_bits(self.weight_bits, self.input_dtype)
        if min(self.m, self.k, self.n) < 1:
            raise KernelError(f"gemm of {self.m} x {self.k} x {self.n}: every size must be >= 1")
        if self.input_dtype == "uint8" and self.k % 4:
            raise KernelError(f"integer gemm over {self.k} channels: must be a multiple of 4")
        if self.residual is not None and self.n % 8:
            raise KernelError(f"gemm with a residual of {self.n} channels: must be a multiple of 8")
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
    def input_shape(self) -> tuple[int, ...]:
        """[m, k]."""
        return (self.m, self.k)

    @property
    def output_shape(self) -> tuple[int, int]:
        """[m, n]."""
        return (self.m, self.n)

    def constants(self, isa: Isa, params: LayerParams) -> tuple[NDArray[Any], ...]:
        """See `Kernel.constants`. `params.weight` is [n, k] or [n, k, 1, 1]."""
        weight = params.weight
        if weight is not None and weight.ndim == 4:
            weight = weight.reshape(weight.shape[:2])
        shape = (self.n, self.k)
        return matrix_constants(isa, self.epilogue, weight, shape, params, self.weight_bits)

    def candidates(self, isa: Isa) -> tuple[Tile, ...]:
        """See `Kernel.candidates`."""
        return product_tiles(isa, self.m, self.n, self.input_dtype, self.weight_bits)

    def prim_func(self, isa: Isa, tile: Tile | None = None) -> tirx.PrimFunc:
        """See `TiledKernel.prim_func`."""
        return _GemmCode(self, isa, tile).build()


def matrix_constants(
    isa: Isa,
    epilogue: Epilogue,
    weight: NDArray[Any] | None,
    shape: tuple[int, int],
    params: LayerParams,
    weight_bits: int = 8,
) -> tuple[NDArray[Any], ...]:
    """Packed weight [blocks, K / group, lanes * group], start, [scale,] scalars.

    Args:
        isa: decides lanes and group.
        epilogue: decides what is folded.
        weight: [N, K], the reduction's order as the kernel walks it.
        shape: the (N, K) that the kernel expects.
        params: bias, scale and quantisation parameters.
        weight_bits: width in which integer weights are held.
    """
    n, _ = shape
    lanes = isa.vector_lanes
    fold = epilogue.fold(params)
    if not epilogue.integer:
        bias = checked("bias", params.bias, (n,), np.float32) * fold
        return (
            pack_matrix(checked("weight", weight, shape, np.float32) * fold, lanes),
            pad_channels(bias, lanes),
            *epilogue.scalars(params),
        )
    matrix = checked("weight", weight, shape, np.int8)
    dot = integer_dot(isa)
    zero_point = require("input", params.input).zero_point - dot.offset
    start = integer_bias(matrix, checked("bias", params.bias, (n,), np.int32), zero_point)
    scale = checked("scale", params.scale, (n,), np.float32) * fold
    return (
        held_weight(pack_integer_matrix(matrix, lanes, dot), weight_bits),
        pad_channels(start, lanes),
        pad_channels(scale, lanes),
        *epilogue.scalars(params),
    )


def product_tiles(
    isa: Isa, rows: int, channels: int, input_dtype: DType, weight_bits: int
) -> tuple[Tile, ...]:
    """Register tiles of `rows` pixels and `channels` output channels, the rule's choice first."""
    dot = integer_dot(isa) if input_dtype == "uint8" else None
    blocks = len(channel_blocks(channels, isa.vector_lanes))
    widened = widening(dot, weight_bits)
    registers = isa.vector_registers - widened.registers
    return matrix_tiles(rows, blocks, registers, multiply_cost(dot), widened.cost)


def multiply_cost(dot: IntegerDot | None) -> float:
    """Vector instructions per multiply-add."""
    return dot.instructions if dot is not None else 1.0


class _GemmCode:
    """Emits one `Gemm`: the reduction innermost, around it rows and groups of output vectors.

    Groups stand outside where the weights are many and the input stays in a cache, else rows.
    """

    def __init__(self, kernel: Gemm, isa: Isa, size: Tile | None) -> None:
        self.kernel = kernel
        self.isa = isa
        self.size = size or kernel.candidates(isa)[0]
        self.symbol = kernel.symbol(isa, size)
        self.em = Emitter()
        self.dot = integer_dot(isa) if kernel.input_dtype == "uint8" else None
        self.converted = self.dot is not None and self.dot.activation_dtype != "uint8"

    def build(self) -> Any:
        kernel, em, isa = self.kernel, self.em, self.isa
        blocks = channel_blocks(kernel.n, isa.vector_lanes)
        self.x = em.argument("x", (kernel.m, kernel.k), kernel.input_dtype)
        residual = None
        if kernel.residual is not None:
            residual = em.argument("residual", (kernel.m, kernel.n), kernel.residual)
        self.operands = Operands(
            em, len(blocks), kernel.k, isa.vector_lanes, self.dot, kernel.weight_bits
        )
        channels = len(blocks) * isa.vector_lanes
        self.tail = EpilogueCode(em, kernel.epilogue, channels, isa.vector_lanes, residual)
        self.out = em.argument("out", (kernel.m, kernel.n), kernel.output_dtype)
        cost, size = multiply_cost(self.dot), self.size
        rows = row_runs(kernel.m, size.rows)
        columns = block_runs(blocks, size.vectors)
        row_counts = [tiles for _, tiles, _ in rows]
        column_counts = [run.count for run in columns]
        # A product of few rows waits for its weights.
        work = max(kernel.m, _ROWS_PER_WEIGHT) * kernel.k * kernel.n * cost
        cycles = work / (2 * isa.vector_lanes * self.operands.group)
        by_rows = even_division(sum(row_counts), sum(column_counts), isa.threads)
        counts = row_counts if by_rows else column_counts
        chunks = thread_chunks(isa, cycles, sum(counts))
        near = kernel.m * kernel.k * np.dtype(kernel.input_dtype).itemsize <= _NEAR_BYTES
        panels = self.operands.far and near and not self.converted

        def chunk(index: Index) -> None:
            self.source = self.x
            if self.dot and self.converted:
                self.source = em.scratch((size.rows, kernel.k), self.dot.activation_dtype)
            part = em.parts(counts, index, chunks)
            row_parts = part if by_rows else [(0, count) for count in row_counts]
            column_parts = [(0, count) for count in column_counts] if by_rows else part
            if panels:
                tiles = -(-sum(row_counts) // chunks) if by_rows else sum(row_counts)
                for run, (start, count) in zip(columns, column_parts, strict=True):
                    group = blocks[run.first : run.first + run.width]
                    body = partial(self.panel, rows, row_parts, tiles, group)
                    em.loop(count, body, start=start)
                return
            for (first, _, height), (start, count) in zip(rows, row_parts, strict=True):

                def row_tile(i: Index, first: int = first, height: int = height) -> None:
                    row = first + i * height
                    if self.dot and self.converted:
                        self.convert(self.dot, row, height)
                    for run, (start, count) in zip(columns, column_parts, strict=True):
                        group = blocks[run.first : run.first + run.width]
                        em.loop(count, partial(self.tile, row, height, group), start=start)

                em.loop(count, row_tile, start=start)

        em.parallel(chunks, chunk)
        return em.function(self.symbol)

    def convert(self, dot: IntegerDot, row: Index, rows: int) -> None:
        """The dot product's element type for one tile of rows, which every group of output vectors
        then reads."""
        for m in range(rows):

            def copy(column: Index, width: int, m: int = m) -> None:
                values = dot.convert(load(self.x, [row + m, column], width), width)
                self.em.store(self.source, [m, column], values, width)

            self.em.pieces(self.kernel.k, 2 * self.isa.vector_lanes, copy)

    def panel(
        self,
        rows: list[tuple[int, int, int]],
        parts: list[tuple[Index, Index]],
        tiles: int,
        blocks: list[Block],
        group: Index,
    ) -> None:
        """All `tiles` tiles of rows of one group of output vectors, which lies `group` groups
        behind `blocks`: the weights of one panel are used while the next one's arrive."""
        before = 0
        for (first, count, height), (start, extent) in zip(rows, parts, strict=True):

            def row_tile(
                i: Index,
                first: int = first,
                height: int = height,
                start: Index = start,
                before: int = before,
            ) -> None:
                turn = (before + i - start, tiles)
                self.tile(first + i * height, height, blocks, group, turn)

            self.em.loop(extent, row_tile, start=start)
            before += min(count, tiles)

    def tile(
        self, row: Index, rows: int, blocks: list[Block], group: Index, turn: Turn | None = None
    ) -> None:
        """One register tile, `group` groups of `blocks` further."""
        steps = self.operands.steps
        tile = RegisterTile(self.operands, rows, blocks, group * len(blocks), steps, turn)
        first = 0 if self.converted else row

        def activation(m: int, k: Index) -> Expr:
            return self.operands.activation(self.source, [first + m, k * self.operands.group])

        tile.reduce(steps, activation)
        self.tail.store(self.out, tile.cells(lambda m: row + m))
