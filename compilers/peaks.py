"""Measure a processor's roofline with small kernels: arithmetic in registers, and streams of reads.

Runs in a disposable child, pinned to the processor that measurements use. The kernels are made by
the emitter of the templates, for the same instruction set, so that a template could reach what
they reach, and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compilers.caches import data_caches
from compilers.intrinsics import integer_dot
from compilers.kernel_library import compile_function
from compilers.kernels.emitter import Buffer, Emitter, Expr, Index, load, splat
from compilers.measurement import MeasurementConfig, measure_interleaved
from compilers.roofline import MEMORY, OPERATIONS_PER_MAC, Bandwidth, Roofline
from compilers.targets import Isa

CHAINS = 12
"""Sums that do not wait for each other: more than any latency times throughput needs, and few
enough for 16 registers."""

_STREAMS = 8
_STEPS = 20_000
_LEAST_STREAM = 4 << 20
_LARGEST_L3, _LEAST_MEMORY, _LARGEST_MEMORY = 32 << 20, 64 << 20, 256 << 20
_CONFIG = MeasurementConfig(warmup_ms=10, min_repeats=15, max_repeats=25)


@dataclass(frozen=True, slots=True)
class Microbenchmark:
    """One kernel whose work is known.

    Attributes:
        function: The compiled kernel.
        tensors: Its arguments.
        work: Operations, or bytes that it reads, per call.
    """

    function: Callable[..., object]
    tensors: Sequence[Any]
    work: int

    def rate(self) -> float:
        """Work per nanosecond, from a fast call: what disturbs a call only slows it down."""
        call = partial(self.function, *self.tensors)
        return self.work / (measure_interleaved([call], _CONFIG)[0].p10_ms * 1e6)


def measure_roofline(isa: Isa) -> Roofline:
    """Compile the kernels for `isa` and run them in this process, one thread."""
    bandwidths = [
        Bandwidth(level, capacity, reads(isa, size).rate()) for level, capacity, size in _levels()
    ]
    return Roofline(
        isa=isa.name,
        float32_gops=multiply_adds(isa).rate(),
        int8_gops=dot_products(isa).rate(),
        bandwidths=tuple(bandwidths),
    )


def _levels() -> list[tuple[str, int | None, int]]:
    """Name, capacity and bytes to read of every level; the bytes exceed the level before."""
    found: list[tuple[str, int | None, int]] = []
    inner = 0
    for cache in data_caches():
        size = min(cache.bytes // 2, _LARGEST_L3)
        if size > inner:
            found.append((f"L{cache.level}", cache.bytes, size))
            inner = cache.bytes
    memory = min(max(2 * inner, _LEAST_MEMORY), _LARGEST_MEMORY)
    return [*found, (MEMORY, None, memory)]


def multiply_adds(isa: Isa) -> Microbenchmark:
    """Fused multiply-adds of float32 vectors in registers."""
    em, lanes = Emitter(), isa.vector_lanes
    x = em.argument("x", ((CHAINS + 2) * lanes,))
    # Sums tend to 2: nothing overflows, and no denormal number slows anything down.
    factor = em.let(load(x, [CHAINS * lanes], lanes))
    term = em.let(load(x, [(CHAINS + 1) * lanes], lanes))
    values = np.ones((CHAINS + 2) * lanes, np.float32)
    values[CHAINS * lanes : (CHAINS + 1) * lanes] = 0.5
    return _arithmetic(
        em, isa, "multiply_adds", x, "float32", lambda sum_: sum_ * factor + term, 1, [values]
    )


def dot_products(isa: Isa) -> Microbenchmark:
    """Exact dot products of integer vectors in registers, as integer layers use them."""
    em, lanes, dot = Emitter(), isa.vector_lanes, integer_dot(isa)
    x = em.argument("x", (CHAINS * lanes,), "int32")
    weight = em.argument("weight", (lanes * dot.group,), dot.weight_dtype)
    weights = em.let(load(weight, [0], lanes * dot.group))

    def step(sum_: Expr) -> Expr:
        # The sums are activations too: a product that never changed would be computed once.
        return dot.accumulate(sum_, sum_, weights, lanes)

    arrays = [np.ones(CHAINS * lanes, np.int32), np.zeros(lanes * dot.group, dot.weight_dtype)]
    return _arithmetic(em, isa, "dot_products", x, "int32", step, dot.group, arrays)


def _arithmetic(
    em: Emitter,
    isa: Isa,
    name: str,
    start: Buffer,
    dtype: str,
    step: Callable[[Expr], Expr],
    macs_per_lane: int,
    arrays: list[NDArray[Any]],
) -> Microbenchmark:
    """Repeat `sum = step(sum)` on `CHAINS` vectors that begin as `start`."""
    lanes = isa.vector_lanes
    out = em.argument("out", (CHAINS * lanes,), dtype)
    sums = [em.register(lanes, dtype) for _ in range(CHAINS)]
    for i, register in enumerate(sums):
        em.store(register, [0], load(start, [i * lanes], lanes), lanes)

    def turn(_: Index) -> None:
        for register in sums:
            em.store(register, [0], step(em.let(load(register, [0], lanes))), lanes)

    em.loop(_STEPS, turn)
    _store_all(em, out, sums, lanes)
    work = OPERATIONS_PER_MAC * macs_per_lane * lanes * CHAINS * _STEPS
    return _benchmark(em, isa, name, [*arrays, np.zeros(CHAINS * lanes, dtype)], work)


def reads(isa: Isa, size: int) -> Microbenchmark:
    """Read `size` bytes in order, again and again if they are few."""
    em, lanes = Emitter(), isa.vector_lanes
    stride = _STREAMS * lanes
    count = size // 4 // stride * stride
    rounds = max(1, _LEAST_STREAM // size)
    x = em.argument("x", (count,))
    out = em.argument("out", (stride,))
    sums = [em.register(lanes) for _ in range(_STREAMS)]
    for register in sums:
        em.store(register, [0], splat(0.0, lanes), lanes)

    def step(i: Index) -> None:
        for stream, register in enumerate(sums):
            values = load(x, [i * stride + stream * lanes], lanes)
            em.store(register, [0], load(register, [0], lanes) + values, lanes)

    em.loop(rounds, lambda _: em.loop(count // stride, step))
    _store_all(em, out, sums, lanes)
    arrays = [np.zeros(count, np.float32), np.zeros(stride, np.float32)]
    return _benchmark(em, isa, f"reads_{size}", arrays, 4 * count * rounds)


def _store_all(em: Emitter, out: Buffer, registers: Sequence[Buffer], lanes: int) -> None:
    for i, register in enumerate(registers):
        em.store(out, [i * lanes], load(register, [0], lanes), lanes)


def _benchmark(
    em: Emitter, isa: Isa, name: str, arrays: Sequence[NDArray[Any]], work: int
) -> Microbenchmark:
    import tvm

    symbol = f"netcarve_{name}_{isa.name}"
    function = compile_function(symbol, em.function(symbol), isa)[symbol]
    return Microbenchmark(function, [tvm.runtime.tensor(array) for array in arrays], work)
