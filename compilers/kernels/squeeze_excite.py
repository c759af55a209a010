"""Squeeze-and-excitation (Hu et al., 2018) as one kernel, and the pooling that it starts with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from compilers.errors import KernelError
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
    minimum,
    splat,
)
from compilers.kernels.epilogue import Cell, EpilogueCode, check_choice, plain_epilogue, require
from compilers.kernels.packing import checked, pack_matrix, pad_channels
from compilers.kernels.register_tile import Operands, RegisterTile
from compilers.kernels.tiling import Block, block_runs, channel_blocks, thread_chunks

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tvm import tirx

    from compilers.targets import Isa

_POOL_VECTORS = 4
"""Vectors of channels that pooling accumulates side by side."""

_PASS_CYCLES = 2.0
"""Estimated cycles per vector of one pass over the pixels."""


@dataclass(frozen=True)
class SqueezeExcite(Kernel):
    """`out = x * hardsigmoid(expand @ relu(reduce @ mean(x) + b1) + b2)`, per channel.

    Arguments of the function: x, reduce weight, reduce bias, expand weight, expand bias,
    [multipliers, factors, zeros,] output. The bottleneck computes in float32.

    Attributes:
        pixels: height times width.
        channels: a multiple of 8.
        hidden: width of the bottleneck.
    """

    kind: ClassVar[str] = "squeeze_excite"

    pixels: int
    channels: int
    hidden: int
    input_dtype: DType = "float32"
    output_dtype: DType = "float32"

    def __post_init__(self) -> None:
        check_pooled(self.pixels, self.channels, self.input_dtype, self.output_dtype)
        if self.hidden < 1:
            raise KernelError(
                f"squeeze-and-excite with {self.hidden} hidden channels: must be >= 1"
            )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[pixels, channels]."""
        return (self.pixels, self.channels)

    @property
    def output_shape(self) -> tuple[int, int]:
        """[pixels, channels]."""
        return (self.pixels, self.channels)

    def constants(self, isa: Isa, params: LayerParams) -> tuple[NDArray[Any], ...]:
        """See `Kernel.constants`. `weight` is [D, C], `expand_weight` [C, D]."""
        c, d, lanes = self.channels, self.hidden, isa.vector_lanes
        reduce = checked("reduce weight", params.weight, (d, c), np.float32)
        expand = checked("expand weight", params.expand_weight, (c, d), np.float32)
        return (
            pack_matrix(reduce, lanes),
            pad_channels(checked("reduce bias", params.bias, (d,), np.float32), lanes),
            pack_matrix(expand, lanes),
            pad_channels(checked("expand bias", params.expand_bias, (c,), np.float32), lanes),
            *pool_scalars(self.input_dtype, self.output_dtype, self.pixels, params),
        )

    def prim_func(self, isa: Isa) -> tirx.PrimFunc:
        """See `Kernel.prim_func`."""
        em, lanes = Emitter(), isa.vector_lanes
        c, d = self.channels, self.hidden
        x = em.argument("x", self.input_shape, self.input_dtype)
        hidden_blocks, blocks = channel_blocks(d, lanes), channel_blocks(c, lanes)
        reduce = Operands(em, len(hidden_blocks), c, lanes, None)
        expand = Operands(em, len(blocks), d, lanes, None)
        tail = PoolTail(em, self.input_dtype, self.output_dtype, isa)
        out = em.argument("out", self.output_shape, self.output_dtype)
        mean = em.scratch((1, c))
        hidden = em.scratch((1, len(hidden_blocks) * lanes))
        gate = em.scratch((1, len(blocks) * lanes))

        tail.pool(x, self.pixels, c, mean)
        _vector_matrix(reduce, mean, c, hidden_blocks, hidden, _relu)
        _vector_matrix(expand, hidden, d, blocks, gate, tail.gate)

        def row(p: Index) -> None:
            for run in block_runs(blocks, _POOL_VECTORS):
                members = blocks[run.first : run.first + run.width]

                def group(j: Index, members: list[Block] = members) -> None:
                    tail.scale(x, p, members, j * len(members) * lanes, gate, out)

                em.loop(run.count, group)

        chunks = pool_chunks(isa, self.pixels, c, self.pixels)

        def chunk(index: Index) -> None:
            first, count = em.share(self.pixels, index, chunks)
            em.loop(count, row, start=first)

        em.parallel(chunks, chunk)
        return em.function(self.symbol(isa))


@dataclass(frozen=True)
class GlobalPool(Kernel):
    """`out[0, c] = mean(x[:, c])`. Sums of uint8 are exact.

    Arguments of the function: x, [multipliers, factors, zeros,] output.

    Attributes:
        pixels: height times width.
        channels: a multiple of 8.
    """

    kind: ClassVar[str] = "global_pool"

    pixels: int
    channels: int
    input_dtype: DType = "float32"
    output_dtype: DType = "float32"

    def __post_init__(self) -> None:
        check_pooled(self.pixels, self.channels, self.input_dtype, self.output_dtype)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[pixels, channels]."""
        return (self.pixels, self.channels)

    @property
    def output_shape(self) -> tuple[int, int]:
        """[1, channels]."""
        return (1, self.channels)

    def constants(self, isa: Isa, params: LayerParams) -> tuple[NDArray[Any], ...]:
        """See `Kernel.constants`: only the scalars of uint8 tensors."""
        del isa
        return pool_scalars(self.input_dtype, self.output_dtype, self.pixels, params)

    def prim_func(self, isa: Isa) -> tirx.PrimFunc:
        """See `Kernel.prim_func`."""
        em = Emitter()
        x = em.argument("x", self.input_shape, self.input_dtype)
        tail = PoolTail(em, self.input_dtype, self.output_dtype, isa)
        out = em.argument("out", self.output_shape, self.output_dtype)
        tail.pool(x, self.pixels, self.channels, out)
        return em.function(self.symbol(isa))


def check_pooled(pixels: int, channels: int, input_dtype: str, output_dtype: str) -> None:
    """Raise `KernelError` for sizes or element types that pooling does not take."""
    check_choice("input dtype", input_dtype, DTYPES)
    check_choice("output dtype", output_dtype, DTYPES)
    if pixels < 1 or channels < 8 or channels % 8:
        raise KernelError(
            f"pooling {pixels} pixels of {channels} channels: channels must be a multiple of 8"
        )


def pool_chunks(isa: Isa, pixels: int, channels: int, most: int) -> int:
    """Into how many parts one pass over all pixels is divided."""
    return thread_chunks(isa, _PASS_CYCLES * pixels * channels / isa.vector_lanes, most)


def pool_scalars(
    input_dtype: DType, output_dtype: DType, pixels: int, params: LayerParams
) -> tuple[NDArray[Any], ...]:
    """multipliers [2] (of the sum, of one element) and the epilogue's scalars, if any is uint8."""
    tail = plain_epilogue(input_dtype, output_dtype)
    if not tail.quantised:
        return ()
    real = np.float32(1.0)
    if input_dtype == "uint8":
        real = np.float32(require("input", params.input).scale)
    out = real
    if output_dtype == "uint8":
        out = real / np.float32(require("output", params.output).scale)
    return np.array([real / np.float32(pixels), out], np.float32), *tail.scalars(params)


class PoolTail:
    """Reads x in its own element type, and writes in the output's."""

    def __init__(self, em: Emitter, input_dtype: DType, output_dtype: DType, isa: Isa) -> None:
        self.em = em
        self.isa = isa
        self.lanes = lanes = isa.vector_lanes
        self.input_dtype = input_dtype
        self.output_dtype = output_dtype
        tail = plain_epilogue(input_dtype, output_dtype)
        self.multipliers = em.argument("multipliers", (2,)) if tail.quantised else None
        self.code = EpilogueCode(em, tail, 0, lanes)

    def multiplier(self, place: int, lanes: int) -> Expr:
        return broadcast(load(self.multipliers, [place], 1), lanes)

    def pool(self, x: Buffer, pixels: int, channels: int, out: Buffer) -> None:
        """Mean over the pixels, stored in `out` [1, channels] (float32, or uint8 as the output)."""
        lanes = self.lanes
        blocks = channel_blocks(channels, lanes)
        runs = block_runs(blocks, _POOL_VECTORS)
        counts = [run.count for run in runs]
        chunks = pool_chunks(self.isa, pixels, channels, sum(counts))

        def chunk(index: Index) -> None:
            parts = self.em.parts(counts, index, chunks)
            for run, (first, count) in zip(runs, parts, strict=True):
                members = blocks[run.first : run.first + run.width]

                def group(j: Index, members: list[Block] = members) -> None:
                    self._pool_group(x, pixels, members, j * len(members) * lanes, out)

                self.em.loop(count, group, start=first)

        self.em.parallel(chunks, chunk)

    def _pool_group(
        self, x: Buffer, pixels: int, blocks: list[Block], shift: Index, out: Buffer
    ) -> None:
        em = self.em
        integer = self.input_dtype == "uint8"
        dtype = "int32" if integer else "float32"
        chains = min(-(-2 * _POOL_VECTORS // len(blocks)), pixels)
        sums = [[em.register(b.lanes, dtype) for b in blocks] for _ in range(chains)]
        for line in sums:
            for block, total in zip(blocks, line, strict=True):
                em.store(total, [0], splat(0, block.lanes, dtype), block.lanes)

        def add(pixel: Index, chain: int) -> None:
            for block, total in zip(blocks, sums[chain], strict=True):
                value = load(x, [pixel, block.channel + shift], block.lanes)
                if integer:
                    value = cast(value, "int32", block.lanes)
                em.store(total, [0], load(total, [0], block.lanes) + value, block.lanes)

        def turn(i: Index) -> None:
            for chain in range(chains):
                add(i * chains + chain, chain)

        em.loop(pixels // chains, turn)
        for pixel in range(pixels // chains * chains, pixels):
            add(pixel, pixel % chains)
        for i, block in enumerate(blocks):
            n = block.lanes
            value = load(sums[0][i], [0], n)
            for chain in range(1, chains):
                value = value + load(sums[chain][i], [0], n)
            if integer:
                offset = self.code.input_zero(n) * splat(pixels, n, "int32")
                value = cast(value - offset, "float32", n)
            if self.multipliers is None:
                value = value * splat(1 / pixels, n)
            else:
                value = value * self.multiplier(0, n)
            if out.dtype == "uint8":
                value = self.code.quantise_real(value, n)
            em.store(out, [0, block.channel + shift], value, n)

    def gate(self, value: Expr, lanes: int) -> Expr:
        """hardsigmoid, times what turns an element of x into steps of the output."""
        gate = value * splat(1 / 6, lanes) + splat(0.5, lanes)
        gate = minimum(maximum(gate, splat(0.0, lanes)), splat(1.0, lanes))
        return gate if self.multipliers is None else gate * self.multiplier(1, lanes)

    def scale(
        self, x: Buffer, pixel: Index, blocks: list[Block], shift: Index, gate: Buffer, out: Buffer
    ) -> None:
        """x times the gate for some blocks of one pixel."""
        cells: list[Cell] = []
        for block in blocks:
            channel, lanes = block.channel + shift, block.lanes
            value = load(x, [pixel, channel], lanes)
            if self.input_dtype == "uint8":
                value = cast(value, "int32", lanes) - self.code.input_zero(lanes)
                value = cast(value, "float32", lanes)
            value = value * load(gate, [0, channel], lanes)
            cells.append(Cell(pixel, channel, lanes, lanes, value, bool(cells)))
        self.code.store(out, cells)


def _relu(value: Expr, lanes: int) -> Expr:
    return maximum(value, splat(0.0, lanes))


def _vector_matrix(
    operands: Operands,
    vector: Buffer,
    depth: int,
    blocks: list[Block],
    out: Buffer,
    activation: Any,
) -> None:
    """out[0, n] = activation(vector[0, depth] @ weight + bias), float32, in registers."""
    em = operands.em
    for run in block_runs(blocks, 4):
        members = blocks[run.first : run.first + run.width]

        def group(j: Index, members: list[Block] = members) -> None:
            tile = RegisterTile(operands, 1, members, j * len(members), depth)
            tile.reduce(depth, lambda _, k: operands.activation(vector, [0, k]))

            for cell in tile.cells(lambda _: 0):
                value = activation(cell.accumulator, cell.lanes)
                em.store(out, [0, cell.channel], value, cell.lanes)

        em.loop(run.count, group)
