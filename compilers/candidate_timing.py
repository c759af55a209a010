"""Short latency measurements of single kernels, and of the candidates for one against each other.

A kernel is called from C++ in rows of calls, with warm caches, on random data. Candidates take
turns, so that a slow moment of the machine falls on all of them. Whether they compute the right
thing is not looked at here: every build is checked against its module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compilers.measurement import quantile


@dataclass(frozen=True, slots=True)
class CompiledKernel:
    """A kernel in a shared library of its own.

    Attributes:
        library: The shared library.
        symbol: The function in it.
        arguments: (shape, element type) of each tensor, the output last.
    """

    library: str
    symbol: str
    arguments: tuple[tuple[tuple[int, ...], str], ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` turns back into an equal one."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CompiledKernel:
        """What `to_json` described."""
        arguments = tuple((tuple(shape), dtype) for shape, dtype in data["arguments"])
        return cls(data["library"], data["symbol"], arguments)


@dataclass(frozen=True, slots=True)
class KernelTimingConfig:
    """How long to measure a candidate.

    Attributes:
        row_us: Least duration of the row of calls behind one sample, microseconds.
        repeats: Samples.
        slow_repeats: Samples where one call alone takes longer than a row.
        warmup_us: Calls before the first sample, microseconds.
    """

    row_us: float = 300.0
    repeats: int = 15
    slow_repeats: int = 7
    warmup_us: float = 500.0


@dataclass(frozen=True, slots=True)
class KernelLatency:
    """Latency of one candidate: median, 10th and 90th percentile in microseconds, samples taken."""

    median_us: float
    p10_us: float
    p90_us: float
    repeats: int

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> KernelLatency:
        """The latency whose fields `data` has."""
        return cls(**data)


def time_candidates(
    candidates: Sequence[CompiledKernel], config: KernelTimingConfig
) -> list[KernelLatency]:
    """Run and measure candidates of one kernel in this process: call it in a disposable child."""
    import tvm

    device = tvm.cpu()
    tensors = [tvm.runtime.tensor(array) for array in _data(candidates[0].arguments)]
    modules = [tvm.runtime.load_module(candidate.library) for candidate in candidates]

    def sample(index: int, calls: int) -> float:
        """Mean microseconds per call over one row."""
        module, candidate = modules[index], candidates[index]
        timer = module.time_evaluator(candidate.symbol, device, number=calls, repeat=1)
        return float(timer(*tensors).results[0]) * 1e6

    rows = [_row(lambda calls, i=i: sample(i, calls), config) for i in range(len(candidates))]
    repeats = config.repeats if max(rows) > 1 else config.slow_repeats
    samples: list[list[float]] = [[] for _ in candidates]
    for _ in range(repeats):
        for index, calls in enumerate(rows):
            samples[index].append(sample(index, calls))
    return [
        KernelLatency(median(taken), quantile(taken, 0.1), quantile(taken, 0.9), len(taken))
        for taken in samples
    ]


def _row(sample: Any, config: KernelTimingConfig) -> int:
    """Warm up; the calls of one row."""
    spent, calls, best = 0.0, 1, float("inf")
    while spent < config.warmup_us:
        taken = sample(calls)
        best = min(best, taken)
        spent += max(taken * calls, 1.0)
        calls = min(2 * calls, 64)
    return max(1, ceil(config.row_us / max(best, 1e-3)))


def _data(arguments: Sequence[tuple[tuple[int, ...], str]]) -> list[NDArray[Any]]:
    """Random values that no kernel stumbles over: indices and offsets are zero, nothing is tiny."""
    rng = np.random.default_rng(0)
    arrays: list[NDArray[Any]] = []
    for shape, dtype in arguments:
        if dtype == "float32":
            arrays.append(rng.uniform(0.5, 1.5, shape).astype(np.float32))
        elif dtype in ("uint8", "int8"):
            arrays.append(rng.integers(0, 100, shape).astype(dtype))
        else:
            arrays.append(np.zeros(shape, dtype))
    return arrays
