"""Linear layer in float32 on integer weights with one scale per group of inputs.

The weights are read once per tile of rows, as integers: a product with one row runs at the speed
at which memory delivers them. Each group of inputs is summed on the bare integers and then scaled,
so that a scale costs one multiply-add per group.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from tvm import tirx

from compilers.errors import KernelError
from compilers.intrinsics import look_up, prefetch
from compilers.kernels.base import DType, Kernel, LayerParams
from compilers.kernels.emitter import Emitter, Expr, Index, broadcast, cast, load, splat
from compilers.kernels.epilogue import Cell, Combine, Epilogue, EpilogueCode, layer_epilogue
from compilers.kernels.packing import checked, pack_matrix, pad_channels
from compilers.kernels.tiling import (
    Block,
    BlockRun,
    block_runs,
    channel_blocks,
    even_parts,
    row_runs,
    thread_chunks,
)
from spaces.layer_spec import Activation
from spaces.quant_scheme import GROUP_SIZES, WEIGHT_ONLY_BITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from compilers.targets import Isa

_NIBBLES = 8
"""4-bit weights of one output channel in an int32."""

_CHAINS = 4
"""Least partial sums of a tile, and most vectors of outputs: a multiply-add is one in three
instructions, and four streams of weights keep memory busier than one."""

_PREFETCH_BYTES = 1024

_STEPS = 32
"""Inputs whose products are unrolled where a tile has one row; every group size is a multiple."""

_CYCLES_PER_WEIGHT = 0.1


@dataclass(frozen=True)
class WeightOnlyGemm(Kernel):
    """`out[m, n] = epilogue(x[m, k] @ (weight[n, k] * scale[n, k // group]).T + bias)`.

    Arguments of the function: x, [residual,] packed weight, scales, start, [factors, zeros,]
    output.

    Attributes:
        m: rows.
        k: input channels.
        n: output channels; a multiple of 8 when there is a residual.
        bits: stored width of the weights, 4 or 8.
        group: inputs that share one scale.
    """

    kind: ClassVar[str] = "weight_only_gemm"
    input_dtype: ClassVar[DType] = "float32"

    m: int
    k: int
    n: int
    bits: int
    group: int
    activation: Activation = Activation.NONE
    residual: DType | None = None
    output_dtype: DType = "float32"
    combine: Combine = "add"
    activation_last: bool = False

    def __post_init__(self) -> None:
        if min(self.m, self.k, self.n) < 1:
            raise KernelError(
                f"weight-only gemm of {self.m} x {self.k} x {self.n}: every size must be >= 1"
            )
        for what, value, allowed in (
            ("bits", self.bits, WEIGHT_ONLY_BITS),
            ("groups", self.group, GROUP_SIZES),
        ):
            if value not in allowed:
                listed = ", ".join(map(str, allowed))
                raise KernelError(f"weight-only gemm with {what} of {value}; allowed: {listed}")
        if self.residual is not None and self.n % 8:
            raise KernelError(
                f"weight-only gemm with a residual of {self.n} channels: must be a multiple of 8"
            )
        _ = self.epilogue

    @property
    def epilogue(self) -> Epilogue:
        """What follows the product."""
        return layer_epilogue(
            "float32",
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

    @property
    def groups(self) -> int:
        """Scales of one output channel."""
        return -(-self.k // self.group)

    def constants(self, isa: Isa, params: LayerParams) -> tuple[NDArray[Any], ...]:
        """See `Kernel.constants`. `params.weight` is int8 [n, k], `params.scale` [n, groups].

        Returns weights [blocks, k, lanes] int8 or, of 4 bits, [blocks, ceil(k / 8), lanes] int32
        with input 8 w + j in bits 4 j to 4 j + 3 of word w; scales [blocks, groups, lanes].
        """
        lanes, fold = isa.vector_lanes, self.epilogue.fold(params)
        weight = checked("weight", params.weight, (self.n, self.k), np.int8)
        scale = checked("scale", params.scale, (self.n, self.groups), np.float32)
        bias = checked("bias", params.bias, (self.n,), np.float32)
        if self.bits == 4:
            if not -8 <= weight.min() <= weight.max() <= 7:
                raise KernelError(
                    f"weights from {weight.min()} to {weight.max()} do not fit 4 bits"
                )
            weight = _words(weight)
        return (
            pack_matrix(weight, lanes),
            pack_matrix(scale * fold, lanes),
            pad_channels(bias * fold, lanes),
            *self.epilogue.scalars(params),
        )

    def prim_func(self, isa: Isa) -> tirx.PrimFunc:
        """See `Kernel.prim_func`."""
        return _WeightOnlyCode(self, isa).build()


def _words(weight: NDArray[np.int8]) -> NDArray[np.int32]:
    """[N, K] -> [N, ceil(K / 8)]: eight consecutive 4-bit integers in one word."""
    n, k = weight.shape
    fields = np.pad(weight, ((0, 0), (0, -k % _NIBBLES))).astype(np.uint32) & 15
    shifted = fields.reshape(n, -1, _NIBBLES) << (4 * np.arange(_NIBBLES, dtype=np.uint32))
    return np.bitwise_or.reduce(shifted, axis=2).view(np.int32)


class _WeightOnlyCode:
    """Emits one `WeightOnlyGemm`: vectors of outputs outside, tiles of rows, groups of inputs."""

    def __init__(self, kernel: WeightOnlyGemm, isa: Isa) -> None:
        self.kernel = kernel
        self.isa = isa
        self.em = Emitter()
        # As many registers may hold the totals.
        sums = isa.vector_registers * 3 // 8
        self.rows = even_parts(kernel.m, sums)[0]
        self.vectors = min(_CHAINS, max(1, sums // self.rows))
        self.chains = max(1, _CHAINS // (self.rows * self.vectors))

    def build(self) -> Any:
        kernel, em, lanes = self.kernel, self.em, self.isa.vector_lanes
        blocks = channel_blocks(kernel.n, lanes)
        self.x = em.argument("x", (kernel.m, kernel.k))
        residual = None
        if kernel.residual is not None:
            residual = em.argument("residual", kernel.output_shape, kernel.residual)
        words = -(-kernel.k // _NIBBLES) if kernel.bits == 4 else kernel.k
        dtype = "int32" if kernel.bits == 4 else "int8"
        self.weight = em.argument("weight", (len(blocks), words, lanes), dtype)
        self.scales = em.argument("scales", (len(blocks), kernel.groups, lanes))
        self.start = em.argument("start", (len(blocks) * lanes,))
        self.tail = EpilogueCode(em, kernel.epilogue, len(blocks) * lanes, lanes, residual)
        self.out = em.argument("out", kernel.output_shape, kernel.output_dtype)
        cycles = kernel.m * kernel.k * kernel.n * _CYCLES_PER_WEIGHT
        for run in block_runs(blocks, self.vectors):
            chunks = thread_chunks(self.isa, cycles, run.count)
            members = blocks[run.first : run.first + run.width]

            def chunk(
                i: Index, run: BlockRun = run, chunks: int = chunks, members: list[Block] = members
            ) -> None:
                first, count = em.share(run.count, i, chunks)
                em.loop(count, lambda j: self.block_group(members, j * len(members)), start=first)

            em.parallel(chunks, chunk)
        return em.function(kernel.symbol(self.isa))

    def block_group(self, blocks: list[Block], shift: Index) -> None:
        """All rows of the vectors of outputs `shift` blocks behind `blocks`."""
        for first, tiles, rows in row_runs(self.kernel.m, self.rows):

            def tile(i: Index, first: int = first, rows: int = rows) -> None:
                self.tile(blocks, shift, first + i * rows, rows)

            self.em.loop(tiles, tile)

    def tile(self, blocks: list[Block], shift: Index, row: Index, rows: int) -> None:
        """The sums of some rows and vectors of outputs, group after group."""
        kernel, em = self.kernel, self.em
        cells = [
            Cell(
                row + r,
                block.channel + shift * self.isa.vector_lanes,
                block.lanes,
                block.valid,
                em.register(block.lanes),
                follows=i > 0,
            )
            for r in range(rows)
            for i, block in enumerate(blocks)
        ]
        for cell in cells:
            start = load(self.start, [cell.channel], cell.lanes)
            em.store(cell.accumulator, [0], start, cell.lanes)
        sums = [[em.register(cell.lanes) for _ in range(self.chains)] for cell in cells]
        unrolled = _STEPS if rows == 1 else _NIBBLES

        def group(g: Index, size: int) -> None:
            for cell, chains in zip(cells, sums, strict=True):
                for chain in chains:
                    em.store(chain, [0], splat(0.0, cell.lanes), cell.lanes)

            def steps(i: Index, count: int = unrolled) -> None:
                first = g * kernel.group + i * unrolled
                weights = [self.weights(b.index + shift, first, count, b.lanes) for b in blocks]
                for k, vectors in enumerate(zip(*weights, strict=True)):
                    for n, (cell, chains) in enumerate(zip(cells, sums, strict=True)):
                        chain, weight = chains[k % self.chains], vectors[n % len(blocks)]
                        x = load(self.x, [row + n // len(blocks), first + k], 1)
                        new = load(chain, [0], cell.lanes) + broadcast(x, cell.lanes) * weight
                        em.store(chain, [0], new, cell.lanes)

            em.loop(size // unrolled, steps)
            if size % unrolled:
                steps(size // unrolled, size % unrolled)
            scales = [em.let(load(self.scales, [b.index + shift, g, 0], b.lanes)) for b in blocks]
            for n, (cell, chains) in enumerate(zip(cells, sums, strict=True)):
                whole = load(chains[0], [0], cell.lanes)
                for chain in chains[1:]:
                    whole = whole + load(chain, [0], cell.lanes)
                total = load(cell.accumulator, [0], cell.lanes) + whole * scales[n % len(blocks)]
                em.store(cell.accumulator, [0], total, cell.lanes)

        full = kernel.k // kernel.group
        em.loop(full, lambda g: group(g, kernel.group))
        if kernel.k % kernel.group:
            group(full, kernel.k % kernel.group)
        totals = [em.let(load(cell.accumulator, [0], cell.lanes)) for cell in cells]
        self.tail.store(
            self.out,
            [replace(cell, accumulator=t) for cell, t in zip(cells, totals, strict=True)],
        )

    def weights(self, block: Index, first: Index, count: int, lanes: int) -> list[Expr]:
        """float32 vectors of the weights of `count` inputs from `first`, a multiple of 8."""
        em = self.em
        if self.kernel.bits == 8:
            codes = (self.word(block, first + k, lanes) for k in range(count))
            return [em.let(cast(code, "float32", lanes)) for code in codes]
        found: list[Expr] = []
        for word in range(-(-count // _NIBBLES)):
            at = tirx.truncdiv(first, _NIBBLES) if not isinstance(first, int) else first // _NIBBLES
            packed = self.word(block, at + word, lanes)
            for nibble in range(min(_NIBBLES, count - word * _NIBBLES)):
                found.append(em.let(self._nibble(packed, nibble, lanes)))
        return found

    def word(self, block: Index, at: Index, lanes: int) -> Expr:
        """Integers `at` of a vector of outputs; later ones are on their way to the cache.

        The processor's own prefetching stops at every page of 4 KiB, which a product with one row
        passes within a microsecond.
        """
        bytes_ = lanes * np.dtype(self.weight.dtype).itemsize
        ahead = [block, at + _PREFETCH_BYTES // bytes_, 0]
        self.em.emit(prefetch(self.weight, ahead))
        return self.em.let(load(self.weight, [block, at, 0], lanes))

    def _nibble(self, packed: Expr, nibble: int, lanes: int) -> Expr:
        """float32 of the signed 4 bits at `nibble` of every word."""

        def by(bits: int) -> Expr:
            return splat(bits, lanes, "int32")

        if lanes == 16:
            codes = [*range(8), *range(-8, 0)]
            shifted = packed >> by(4 * nibble) if nibble else packed
            return look_up([float(code) for code in codes], shifted)
        left = 28 - 4 * nibble
        high = packed << by(left) if left else packed
        return cast(high >> by(28), "float32", lanes)
