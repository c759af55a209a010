"""Verified subnets of a device and their Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compilers.measurement import Measurement
from search.models import Purpose
from search.objectives import Problem
from search.pareto import best_order, non_dominated, non_dominated_sort
from spaces import (
    FP32,
    Config,
    Cost,
    DimensionKind,
    SearchSpace,
    SpaceError,
    cost,
)

KB = 1000.0
# Repeats of the same measurement never agree better than this on a shared machine.
LEAST_NOISE = 0.01
# Nats, as for a probability of one in a million; a loss above it, or one that is not finite, counts
# as this. An infinite one would leave no scale on which to compare the others.
LARGEST_LOSS = 13.8
# So many subnets are kept when none meets the constraints.
CLOSEST = 5


@dataclass(frozen=True)
class Verified:
    """One verified evaluation of a subnet for one device.

    Attributes:
        config: The subnet.
        generation: Round of the search; 0 are the reference configs.
        accuracy: Top-1 accuracy on the selection split, 0 to 1.
        loss: Cross-entropy on the selection split, nats; None when it is not finite.
        costs: Exact analytic cost.
        measurement: Measured latency.
        predicted_ms, predicted_ms_std: Latency as predicted *before* it was measured; of a
            reference config, from the other reference configs.
        predicted_accuracy, predicted_accuracy_std: Likewise.
        purpose: Why this measurement was made.
        measured_at: When it was stored, seconds since the epoch.
    """

    config: Config
    generation: int
    accuracy: float
    loss: float | None
    costs: Cost
    measurement: Measurement
    predicted_ms: float | None = None
    predicted_ms_std: float | None = None
    predicted_accuracy: float | None = None
    predicted_accuracy_std: float | None = None
    purpose: Purpose = Purpose.VERIFY
    measured_at: float = 0.0

    @property
    def measurement_id(self) -> dict[str, Any]:
        """What tells this measurement from the config's others on the device, JSON-ready."""
        return {"purpose": self.purpose.value, "created": self.measured_at}

    @property
    def measured_ms(self) -> float:
        """Median measured latency, ms."""
        return self.measurement.median_ms

    @property
    def metrics(self) -> dict[str, float]:
        """Metric name -> value in its base unit: fraction, ms, bytes, count, nats."""
        return {
            "accuracy": self.accuracy,
            "loss": LARGEST_LOSS if self.loss is None else min(self.loss, LARGEST_LOSS),
            "latency": self.measured_ms,
            "size": float(self.costs.bytes),
            "macs": float(self.costs.macs),
            "params": float(self.costs.params),
        }


@dataclass(frozen=True)
class FrontMember:
    """A non-dominated verified subnet of a device, in a user's units.

    Attributes:
        key: Its config's key.
        config: Dimension -> value, of those that count.
        accuracy: On the selection split, %.
        report_accuracy: Of the compiled binary on the report split, %; None before its export. The
            binary is that of the fine-tuned subnet, where there is one that is no worse.
        predicted_ms: Latency predicted without its own measurement, ms.
        measured_ms, p10_ms, p90_ms: Measured latency, ms.
        bytes: Weights in the on-disk layout.
        float_bytes: The same subnet's with every layer in float32.
        macs: Multiply-accumulates of one inference.
        precisions: Layers by precision, for example {"w8a8": 14, "fp32": 2}.
        feasible: Whether it meets every constraint; False: the closest that was found.
        finetuned_accuracy: Of the fine-tuned subnet on the selection split, %; None: there is none.
        finetuned_ms: Measured latency of the fine-tuned subnet, ms.
    """

    key: str
    config: dict[str, Any]
    accuracy: float
    report_accuracy: float | None
    predicted_ms: float | None
    measured_ms: float
    p10_ms: float
    p90_ms: float
    bytes: int
    float_bytes: int
    macs: int
    precisions: dict[str, int]
    feasible: bool
    finetuned_accuracy: float | None = None
    finetuned_ms: float | None = None

    def to_json(self) -> dict[str, Any]:
        """All fields, JSON-ready."""
        return asdict(self)


class DeviceResults:
    """The verified subnets of one device of a job."""

    def __init__(
        self,
        space: SearchSpace,
        verified: Sequence[Verified],
        problem: Problem,
        report_accuracy: dict[str, float],
        finetuned: Mapping[str, Verified] | None = None,
    ) -> None:
        self.space = space
        self.verified = list(verified)
        self.problem = problem
        self.report_accuracy = report_accuracy
        self.finetuned = dict(finetuned or {})

    @cached_property
    def feasible(self) -> bool:
        """Whether any verified subnet meets every constraint."""
        return any(self.violation(v) == 0 for v in self.verified)

    def deployed(self, verified: Verified) -> Verified:
        """What is exported of a config: the one that was verified, or its fine-tuned subnet where
        that is no worse."""
        tuned = self.finetuned.get(verified.config.key, verified)
        return tuned if tuned.accuracy >= verified.accuracy else verified

    def violation(self, verified: Verified) -> float:
        """Summed relative violation of all constraints, 0 when all are met."""
        return sum(self.problem.violations(verified.metrics).values())

    def contenders(self, ranks: int) -> list[Verified]:
        """The subnets of the first `ranks` non-dominated ranks, in the order of the search."""
        if not self.verified:
            return []
        found = non_dominated_sort(*self._compared())
        return [v for v, rank in zip(self.verified, found, strict=True) if rank < ranks]

    def _compared(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Minimised objectives (n, m) and violations (n,) of every verified subnet."""
        columns = {
            name: np.array([v.metrics[name] for v in self.verified]) for name in self.problem.names
        }
        return self.problem.minimised(columns), self.problem.violation(columns)

    @cached_property
    def front(self) -> list[Verified]:
        """The non-dominated subnets, fastest first; the closest ones when none is feasible."""
        if not self.verified:
            return []
        costs, violations = self._compared()
        if self.feasible:
            chosen = np.flatnonzero(non_dominated(costs, violations))
        else:
            chosen = best_order(costs, violations)[:CLOSEST]
        return sorted((self.verified[i] for i in chosen), key=lambda v: v.measured_ms)

    @cached_property
    def noise(self) -> float:
        """Relative noise of the front's latencies: the worst A/A comparison of the sessions that
        measured its members."""
        return max([LEAST_NOISE, *(abs(v.measurement.aa_ratio - 1) for v in self.front)])

    @property
    def throttled(self) -> int:
        """How many verified latencies are from a session in which the machine became slower."""
        return sum(v.measurement.throttled for v in self.verified)

    def distinct(self) -> int:
        """How many members of the front have latencies that differ by more than the noise."""
        count, last = 0, 0.0
        for member in self.front:
            if member.measured_ms > last * (1 + self.noise):
                count, last = count + 1, member.measured_ms
        return count

    def precision_twins(self) -> list[tuple[Verified, Verified]]:
        """Verified pairs of one architecture, all layers in float32 and all in 8 bits."""
        by_config: dict[Config | None, Verified] = {v.config: v for v in self.verified}
        pairs = []
        for integer in self.verified:
            floating = at_bits(self.space, integer.config, 32)
            if floating in by_config and at_bits(self.space, integer.config, 8) == integer.config:
                pairs.append((by_config[floating], integer))
        return sorted(pairs, key=lambda pair: pair[1].measured_ms)

    def members(self) -> list[FrontMember]:
        """The front in a user's units."""
        return [self.member(v) for v in self.front]

    def member(self, verified: Verified) -> FrontMember:
        """One verified subnet in a user's units."""
        layers = self.space.layer_specs(self.space.config(verified.config))
        names = [s.precision.name for s in layers if s.operator.value in _WITH_PRECISION]
        report = self.report_accuracy.get(verified.config.key)
        tuned = self.finetuned.get(verified.config.key)
        return FrontMember(
            key=verified.config.key,
            config=verified.config.active(),
            accuracy=100 * verified.accuracy,
            report_accuracy=None if report is None else 100 * report,
            predicted_ms=verified.predicted_ms,
            measured_ms=verified.measured_ms,
            p10_ms=verified.measurement.p10_ms,
            p90_ms=verified.measurement.p90_ms,
            bytes=verified.costs.bytes,
            float_bytes=cost(replace(layer, precision=FP32) for layer in layers).bytes,
            macs=verified.costs.macs,
            precisions={name: names.count(name) for name in sorted(set(names))},
            feasible=self.violation(verified) == 0,
            finetuned_accuracy=None if tuned is None else 100 * tuned.accuracy,
            finetuned_ms=None if tuned is None else tuned.measured_ms,
        )


_WITH_PRECISION = ("conv", "depthwise_conv", "linear")


def at_bits(space: SearchSpace, config: Config, bits: int) -> Config | None:
    """The same architecture with every searchable weight at `bits` (32 is float32).

    What did not count before, input bits and the form of a float32 layer, is the finest that
    `space` has. Otherwise its restrictions do not count; None when its family has no such bits.
    """
    whole = SearchSpace(space.name, space.family)
    finest = {d.name: d.choices[-1] for d in space.dimensions}
    weights = [d.name for d in whole.dimensions if d.kind is DimensionKind.W_BITS]
    try:
        return whole.config(finest | config.active() | dict.fromkeys(weights, bits))
    except SpaceError:
        return None
