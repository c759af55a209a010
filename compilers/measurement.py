"""Careful latency measurement: warm-up, interleaved batches of calls, medians, an A/A ratio.

All functions are timed in one process in turn, in an order that is shuffled every round, so that
a slow moment of the machine falls on all of them. Each sample is the mean of a batch of calls
long enough for the clock. Rounds go on until the median of every function is known well enough.
The first function is measured twice under two names; the ratio of these two medians is what the
set-up gets wrong with nothing to tell apart.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import ceil, sqrt
from statistics import median
from typing import Any

CLOCK = "perf_counter_ns"

Sampler = Callable[[int], float]
"""Makes a batch of so many calls; the mean milliseconds of one."""


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
    """

    warmup_ms: float = 30.0
    batch_ms: float = 1.0
    min_repeats: int = 40
    max_repeats: int = 400
    interval: float = 0.03
    seed: int = 0


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
        One measurement per function, in order, all with the same A/A ratio.
    """
    return measure_samplers(
        [partial(_sample, function) for function in functions],
        config,
        None if twin is None else partial(_sample, twin),
    )


def measure_samplers(
    samplers: Sequence[Sampler],
    config: MeasurementConfig = MeasurementConfig(),
    twin: Sampler | None = None,
    clock: str = CLOCK,
) -> list[Measurement]:
    """Time what brings its own stop watch, for example a loop on another machine.

    Args:
        samplers: One per binary, at least one.
        config: How long.
        twin: A second instance of `samplers[0]` for the A/A ratio; itself when None.
        clock: What the samplers read.

    Returns:
        As `measure_interleaved`.
    """
    every = [*samplers, twin or samplers[0]]
    order = list(range(len(every)))
    shuffle = random.Random(config.seed)  # noqa: S311 - not a secret
    batches, warmups = zip(*(_calibrate(sampler, config) for sampler in every), strict=True)
    samples: list[list[float]] = [[] for _ in every]
    for repeat in range(1, config.max_repeats + 1):
        shuffle.shuffle(order)
        for index in order:
            samples[index].append(every[index](batches[index]))
        if repeat >= config.min_repeats and all(
            median_interval(taken) < config.interval for taken in samples
        ):
            break
    ratio = median(samples[-1]) / median(samples[0])
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
        )
        for taken, batch, warmup in zip(samples[:-1], batches, warmups, strict=False)
    ]


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


def _calibrate(sampler: Sampler, config: MeasurementConfig) -> tuple[int, int]:
    """Warm up; return the calls of one batch and the calls made."""
    calls, spent = 0, 0.0
    while calls < 3 or spent < config.warmup_ms:
        spent += sampler(1)
        calls += 1
    best = min(sampler(1) for _ in range(5))
    return max(1, ceil(config.batch_ms / best)), calls + 5
