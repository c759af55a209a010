"""Normalisation of rows: LayerNorm (Ba et al., 2016) and RMSNorm (Zhang and Sennrich, 2019)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from compilers.errors import KernelError
from compilers.kernels.base import DType, LayerParams, RowwiseKernel
from compilers.kernels.emitter import (
    Buffer,
    Emitter,
    Expr,
    Index,
    broadcast,
    cast,
    load,
    splat,
)
from compilers.kernels.epilogue import Cell, Epilogue, EpilogueCode, plain_epilogue, require
from compilers.kernels.packing import checked
from compilers.kernels.tiling import thread_chunks
from compilers.kernels.vector_math import reciprocal_root, reduce_lanes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tvm import tirx

    from compilers.targets import Isa

_GROUP = 8
"""Vectors that one iteration of a loop over the channels handles."""

_CHAINS = 4
"""Partial sums, which hide the latency of an addition."""

_CYCLES_PER_VECTOR = 4.0


@dataclass(frozen=True)
class Norm(RowwiseKernel):
    """`out = (x - mean) / sqrt(var + epsilon) * gain + shift` over the channels of each row.

    RMSNorm (not `centred`) takes 0 for the mean, also inside the variance. The variance is summed
    in a second pass over the differences, so that large means cancel nothing.

    Arguments of the function: x, gain [C], shift [C], [epsilon [1] in squared steps of the
    input if it is uint8,] [factors, zeros,] output. `LayerParams`: `weight` [C] is the gain,
    `bias` [C] the shift, both float32.

    Attributes:
        channels: a multiple of 8.
        epsilon: added to the variance.
        centred: LayerNorm, else RMSNorm.
    """

    kind: ClassVar[str] = "norm"

    epsilon: float = 1e-5
    centred: bool = True
    input_dtype: DType = "float32"
    output_dtype: DType = "float32"

    def __post_init__(self) -> None:
        plain_epilogue(self.input_dtype, self.output_dtype)
        if self.rows < 1 or self.channels < 8 or self.channels % 8:
            raise KernelError(
                f"normalisation of {self.rows} rows of {self.channels} channels: "
                "rows must be >= 1, channels a multiple of 8"
            )
        if not 0.0 <= self.epsilon < float("inf"):
            raise KernelError(f"epsilon {self.epsilon} is not a finite number >= 0")

    @property
    def epilogue(self) -> Epilogue:
        """Only the conversion of the output."""
        return plain_epilogue(self.input_dtype, self.output_dtype)

    def constants(self, isa: Isa, params: LayerParams) -> tuple[NDArray[Any], ...]:
        """See `Kernel.constants`."""
        del isa
        fold = self.epilogue.fold(params)
        gain = checked("gain", params.weight, (self.channels,), np.float32)
        shift = checked("shift", params.bias, (self.channels,), np.float32)
        packed = [gain * fold, shift * fold]
        if self.input_dtype == "uint8":
            # A quotient of steps needs no scale but for what is added to the variance.
            scale = require("input", params.input).scale
            packed.append(np.array([self.epsilon / scale**2], np.float32))
        return *packed, *self.epilogue.scalars(params)

    def prim_func(self, isa: Isa) -> tirx.PrimFunc:
        """See `Kernel.prim_func`."""
        return _NormCode(self, isa).build()


class _NormCode:
    """Emits one `Norm`."""

    def __init__(self, kernel: Norm, isa: Isa) -> None:
        self.kernel = kernel
        self.isa = isa
        self.em = Emitter()

    def build(self) -> Any:
        kernel, em, isa = self.kernel, self.em, self.isa
        self.x = em.argument("x", kernel.input_shape, kernel.input_dtype)
        self.gain = em.argument("gain", (kernel.channels,))
        self.shift = em.argument("shift", (kernel.channels,))
        quantised = kernel.input_dtype == "uint8"
        self.epsilon = em.argument("epsilon", (1,)) if quantised else None
        self.code = EpilogueCode(em, kernel.epilogue, kernel.channels, isa.vector_lanes)
        self.out = em.argument("out", kernel.output_shape, kernel.output_dtype)
        cycles = kernel.rows * kernel.channels / isa.vector_lanes * _CYCLES_PER_VECTOR
        chunks = thread_chunks(isa, cycles, kernel.rows)

        def chunk(i: Index) -> None:
            first, count = em.share(kernel.rows, i, chunks)
            em.loop(count, self.row, first)

        em.parallel(chunks, chunk)
        return em.function(kernel.symbol(isa))

    def row(self, row: Index) -> None:
        """All passes over one row."""
        kernel, em = self.kernel, self.em
        mean: Expr | None = None
        if kernel.centred:
            mean = self.average(lambda channel, lanes: self.value(row, channel, lanes, None))

        def square(channel: Index, lanes: int) -> Expr:
            value = em.let(self.value(row, channel, lanes, mean))
            return value * value

        variance = self.average(square)
        epsilon = splat(kernel.epsilon, 1)
        if self.epsilon is not None:
            epsilon = load(self.epsilon, [0], 1)
        scale = reciprocal_root(em, variance + epsilon, 1)

        def finish(first: Index, widths: Sequence[int]) -> None:
            cells = []
            for i, (channel, lanes) in enumerate(_places(first, widths)):
                value = self.value(row, channel, lanes, mean) * broadcast(scale, lanes)
                value = value * load(self.gain, [channel], lanes)
                value = em.let(value + load(self.shift, [channel], lanes))
                cells.append(Cell(row, channel, lanes, lanes, value, i > 0))
            self.code.store(self.out, cells)

        self.groups(finish)

    def value(self, row: Index, channel: Index, lanes: int, mean: Expr | None) -> Expr:
        """x - mean, in steps when x is uint8."""
        value = load(self.x, [row, channel], lanes)
        if self.kernel.input_dtype == "uint8":
            integer = cast(value, "int32", lanes) - self.code.input_zero(lanes)
            value = cast(integer, "float32", lanes)
        return value if mean is None else value - broadcast(mean, lanes)

    def groups(self, body: Callable[[Index, Sequence[int]], None]) -> None:
        """Run `body(first channel, lanes of each vector)` over a row."""
        channels, lanes = self.kernel.channels, self.isa.vector_lanes
        size = _GROUP * lanes
        self.em.loop(channels // size, lambda i: body(i * size, [lanes] * _GROUP))
        rest = channels % size
        if rest:
            body(channels - rest, [lanes] * (rest // lanes) + [8] * (rest % lanes // 8))

    def average(self, element: Callable[[Index, int], Expr]) -> Expr:
        """Mean over the channels of `element(channel, lanes)`."""
        em, channels, full = self.em, self.kernel.channels, self.isa.vector_lanes
        sums: dict[int, list[Buffer]] = {}
        if channels >= full:
            sums[full] = [em.register(full) for _ in range(min(_CHAINS, channels // full))]
        if channels % full:
            sums[8] = [em.register(8)]
        for lanes, totals in sums.items():
            for total in totals:
                em.store(total, [0], splat(0.0, lanes), lanes)

        def add(first: Index, widths: Sequence[int]) -> None:
            for i, (channel, lanes) in enumerate(_places(first, widths)):
                total = sums[lanes][i % len(sums[lanes])]
                value = load(total, [0], lanes) + element(channel, lanes)
                em.store(total, [0], value, lanes)

        self.groups(add)
        scalars = []
        for lanes, totals in sums.items():
            vector = _sum([load(total, [0], lanes) for total in totals])
            scalars.append(reduce_lanes(em, vector, lanes, lambda a, b: a + b))
        return em.let(_sum(scalars) * splat(1 / channels, 1))


def _sum(values: Sequence[Expr]) -> Expr:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


def _places(first: Index, widths: Sequence[int]) -> list[tuple[Index, int]]:
    """(channel, lanes) of neighbouring vectors."""
    places = []
    for lanes in widths:
        places.append((first, lanes))
        first = first + lanes
    return places
