"""Careful latency measurement: warm-up, interleaved batches of calls, medians, an A/A ratio.

All functions are timed in one process in turn, in an order that is shuffled every round, so that
a slow moment of the machine falls on all of them. Each sample is the mean of a batch of calls
long enough for the clock. Rounds go on until the median of every function is known well enough.
The first function is measured twice under two names; the ratio of these two medians is what the
set-up gets wrong with nothing to tell apart.

With a cold cache every sample is one call, made after a buffer larger than the private caches was
written through; the interpreter's own code and data are fetched again before the clock starts.

A processor that gets hot or loses its boost slows down in the course of a session. So the last
third of the samples is compared with the first, and so is a reference loop that does the same
arithmetic in every round and touches no memory: it tells a slower clock from other causes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import ceil, sqrt
from statistics import median
from typing import Any, Literal, get_args

from compilers.caches import data_caches
from compilers.errors import MeasurementError

CLOCK = "perf_counter_ns"
STEADY = 1.05
"""Largest drift of a session that counts as steady."""

CacheState = Literal["warm", "cold"]
Sampler = Callable[[int], float]
"""Makes a batch of so many calls; the mean milliseconds of one."""

_REFERENCE_STEPS = 2000
_LEAST_FLUSH, _LARGEST_FLUSH = 16 << 20, 64 << 20


@dataclass(frozen=True, slots=True)
class MeasurementConfig:
    """How long to measure.

    Attributes:
        warmup_ms: Calls before the first sample, ms per function.
        batch_ms: Least duration of the batch of calls behind one sample, ms.
        min_repeats: Least number of samples per function.
        max_repeats: Largest number of samples per function.
        interval: Width of the 95 % interval of the median, relative to it, that is good enough.
        seed: Of the order of functions in each round.
        cache: `warm`: calls follow each other, so that they find their data in the caches;
            `cold`: the caches are flushed before every call, which is a sample of its own.

    Raises:
        MeasurementError: `cache` is neither.
    """

    warmup_ms: float = 30.0
    batch_ms: float = 1.0
    min_repeats: int = 40
    max_repeats: int = 400
    interval: float = 0.03
    seed: int = 0
    cache: CacheState = "warm"

    def __post_init__(self) -> None:
        if self.cache not in get_args(CacheState):
            raise MeasurementError(f"cache is {self.cache!r}; allowed: warm, cold")


@dataclass(frozen=True, slots=True)
class Measurement:
    """Latency of one binary on one device.

    Attributes:
        median_ms: Median of the samples, milliseconds per call.
        p10_ms: 10th percentile, ms.
        p90_ms: 90th percentile, ms.
        repeats: Samples taken.
        warmup: Calls made before the first sample.
        clock: What was read.
        aa_ratio: Second median over first of the binary that was measured twice in this session.
        interval: Relative width of the 95 % interval of the median.
        batch: Calls behind one sample.
        cache: Whether calls found their data in the caches: `warm` or `cold`.
        drift: Median over the session's functions of the median of the last third of their
            samples by that of the first; None when it was not recorded.
        reference_drift: The same of the reference loop, which only the clock frequency and other
            work on this processor can slow down; None when it was not recorded.
    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    repeats: int
    warmup: int
    clock: str
    aa_ratio: float
    interval: float
    batch: int
    cache: CacheState = "warm"
    drift: float | None = None
    reference_drift: float | None = None

    @property
    def throttled(self) -> bool:
        """Whether the machine became slower by more than `STEADY` during the session."""
        return any(d is not None and d > STEADY for d in (self.drift, self.reference_drift))

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` turns back into an equal measurement."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measurement:
        """The measurement that `to_json` described."""
        return cls(**data)


def measure_interleaved(
    functions: Sequence[Callable[[], object]],
    config: MeasurementConfig = MeasurementConfig(),
    twin: Callable[[], object] | None = None,
) -> list[Measurement]:
    """Time functions against each other.

    Args:
        functions: What to call, at least one.
        config: How long.
        twin: A second instance of `functions[0]` for the A/A ratio; the function itself when
            None.

    Returns:
        One measurement per function, in order, all with the same A/A ratio and drifts.
    """
    return measure_samplers(
        [timed(function) for function in functions],
        config,
        None if twin is None else timed(twin),
    )


def timed(function: Callable[[], object]) -> Sampler:
    """A sampler of a Python function."""
    return partial(_sample, function)


def measure_samplers(
    samplers: Sequence[Sampler],
    config: MeasurementConfig = MeasurementConfig(),
    twin: Sampler | None = None,
    clock: str = CLOCK,
    here: bool = True,
) -> list[Measurement]:
    """Time what brings its own stop watch, for example a loop outside Python.

    Args:
        samplers: At least one.
        config: How long.
        twin: A second instance of `samplers[0]` for the A/A ratio; itself when None.
        clock: What the samplers read.
        here: Whether the calls are made on this processor, whose caches can be flushed and whose
            clock a reference loop can watch.

    Returns:
        One measurement per sampler, in order, all with the same A/A ratio and drifts.

    Raises:
        MeasurementError: A cold cache is asked for, but the calls are made elsewhere.
    """
    if config.cache == "cold" and not here:
        raise MeasurementError(
            "cache is 'cold', but another machine's caches cannot be flushed; allowed there: warm"
        )
    every = [*samplers, twin or samplers[0]]
    order = list(range(len(every)))
    shuffle = random.Random(config.seed)  # noqa: S311 - not a secret
    batches, warmups = zip(*(_calibrate(sampler, config) for sampler in every), strict=True)
    flush = CacheFlush() if config.cache == "cold" else None
    samples: list[list[float]] = [[] for _ in every]
    reference: list[float] = []
    for repeat in range(1, config.max_repeats + 1):
        if here:
            reference.append(_reference_ms())
        shuffle.shuffle(order)
        for index in order:
            if flush is not None:
                flush()
            samples[index].append(every[index](batches[index]))
        if repeat >= config.min_repeats and all(
            median_interval(taken) < config.interval for taken in samples
        ):
            break
    ratio = median(samples[-1]) / median(samples[0])
    drifts = [found for taken in samples if (found := drift(taken)) is not None]
    return [
        Measurement(
            median_ms=median(taken),
            p10_ms=quantile(taken, 0.1),
            p90_ms=quantile(taken, 0.9),
            repeats=len(taken),
            warmup=warmup,
            clock=clock,
            aa_ratio=ratio,
            interval=median_interval(taken),
            batch=batch,
            cache=config.cache,
            drift=median(drifts) if drifts else None,
            reference_drift=drift(reference),
        )
        for taken, batch, warmup in zip(samples[:-1], batches, warmups, strict=False)
    ]


class CacheFlush:
    """Evicts everything else from the caches by writing through a large buffer.

    Its size is twice the largest cache, 16 MiB at least, 64 MiB at most: a huge last level, which
    many cores share, is not emptied, but nothing stays in the caches of one core.
    """

    def __init__(self) -> None:
        import numpy as np

        largest = max(cache.bytes for cache in data_caches())
        size = min(max(2 * largest, _LEAST_FLUSH), _LARGEST_FLUSH)
        self._buffer = np.zeros(size // 8, np.int64)

    def __call__(self) -> None:
        """Flush. What calls and times functions is warm afterwards, what they call is not."""
        self._buffer += 1
        _sample(_nothing, 1)


def drift(samples: Sequence[float]) -> float | None:
    """Median of the last third of the samples, in the order taken, by that of the first third.

    None when there are fewer than three, or the clock did not move.
    """
    third = len(samples) // 3
    first = median(samples[:third]) if third else 0.0
    return median(samples[-third:]) / first if first else None


def quantile(samples: Sequence[float], q: float) -> float:
    """The `q` quantile by linear interpolation, 0 <= q <= 1."""
    ordered = sorted(samples)
    position = q * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def median_bounds(samples: Sequence[float]) -> tuple[float, float]:
    """Ends of the 95 % interval of the median, from order statistics.

    The number of samples below the true median is binomial(n, 1/2), whatever their distribution.
    """
    ordered, n = sorted(samples), len(samples)
    half = 1.96 * sqrt(n) / 2
    low, high = max(0, int(n / 2 - half)), min(n - 1, ceil(n / 2 + half))
    return ordered[low], ordered[high]


def median_interval(samples: Sequence[float]) -> float:
    """Width of the 95 % interval of the median, relative to it."""
    low, high = median_bounds(samples)
    return (high - low) / median(samples)


def _sample(function: Callable[[], object], batch: int) -> float:
    """Mean milliseconds per call over one batch."""
    start = time.perf_counter_ns()
    for _ in range(batch):
        function()
    return (time.perf_counter_ns() - start) / batch / 1e6


def _nothing() -> None:
    """Return."""


def _reference_ms() -> float:
    """Milliseconds of a loop of integer arithmetic in registers and the innermost cache."""
    start = time.perf_counter_ns()
    sum(range(_REFERENCE_STEPS))
    return (time.perf_counter_ns() - start) / 1e6


def _calibrate(sampler: Sampler, config: MeasurementConfig) -> tuple[int, int]:
    """Warm up; return the calls of one batch and the calls made."""
    calls, spent = 0, 0.0
    while calls < 3 or spent < config.warmup_ms:
        spent += sampler(calls + 1) * (calls + 1)
        calls += calls + 1
    best = min(sampler(1) for _ in range(5))
    batch = 1 if config.cache == "cold" else max(1, ceil(config.batch_ms / best))
    return batch, calls + 5
