"""What a search optimises and what it must respect, in the units of the user.

Metrics travel through the search in base units (fraction, ms, bytes, count, nats); an objective or
constraint knows its own unit and converts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, model_validator

from search.errors import ObjectiveError
from spaces.errors import UnknownNameError

FloatArray = NDArray[np.float64]
Metrics = Mapping[str, FloatArray]


class Direction(StrEnum):
    """Which values are better; the values are Optuna's names."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"


class Metric(NamedTuple):
    """A quantity that evaluations yield.

    `logarithmic`: equal ratios count equally, as for times and sizes. `largest`: no greater value
    exists, in base units.
    """

    units: Mapping[str, float]
    direction: Direction
    logarithmic: bool
    largest: float = float("inf")


def _prefixed(unit: str) -> dict[str, float]:
    return {unit: 1.0, f"k{unit}": 1e3, f"M{unit}": 1e6, f"G{unit}": 1e9}


_BYTES = {"bytes": 1.0, "B": 1.0, "kB": 1e3, "MB": 1e6, "KiB": 1024.0, "MiB": 1024.0**2}
_TIMES = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}

METRICS: dict[str, Metric] = {
    "accuracy": Metric({"%": 0.01, "fraction": 1.0}, Direction.MAXIMIZE, False, 1.0),
    "loss": Metric({"nats": 1.0}, Direction.MINIMIZE, False),
    "latency": Metric(_TIMES, Direction.MINIMIZE, True),
    "size": Metric(_BYTES, Direction.MINIMIZE, True),
    "macs": Metric(_prefixed("MACs"), Direction.MINIMIZE, True),
    "params": Metric(_prefixed("params"), Direction.MINIMIZE, True),
}


class _Measured(BaseModel):
    """A metric with a unit; the base of objectives and constraints."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    unit: str

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or "name" not in data:
            return data
        kind, name = cls.__name__.lower(), data["name"]
        # A list or mapping would not even be hashable.
        if not isinstance(name, str) or name not in METRICS:
            raise ValueError(str(UnknownNameError("metric", str(name), METRICS)))
        unit, units = data.get("unit"), ", ".join(METRICS[name].units)
        if unit is None:
            raise ValueError(f"{kind} {name!r} has no unit; allowed: {units}")
        if not isinstance(unit, str) or unit not in METRICS[name].units:
            raise ValueError(f"unit {unit!r} of {kind} {name!r}; allowed: {units}")
        return data

    @property
    def metric(self) -> Metric:
        """What is measured."""
        return METRICS[self.name]

    def in_unit(self, value: ArrayLike) -> Any:
        """A value in base units, converted to this unit."""
        return np.asarray(value, np.float64) / self.metric.units[self.unit]

    def in_base(self, value: ArrayLike) -> Any:
        """A value in this unit, converted to base units."""
        return np.asarray(value, np.float64) * self.metric.units[self.unit]


class Objective(_Measured):
    """A metric to optimise.

    Attributes:
        name: One of `METRICS`.
        unit: In which it is shown and stored.
        direction: Which values are better; default: the metric's own.
    """

    direction: Direction = Direction.MINIMIZE

    @model_validator(mode="before")
    @classmethod
    def _default_direction(cls, data: Any) -> Any:
        name = data.get("name") if isinstance(data, Mapping) else None
        if isinstance(name, str) and name in METRICS:
            return {"direction": METRICS[name].direction, **data}
        return data

    def minimised(self, value: ArrayLike) -> Any:
        """A value in base units as the search compares it: smaller is better; times, sizes and
        counts by their logarithm.

        Args:
            value: Number or array of any shape.

        Returns:
            float64 of the same shape.
        """
        scaled = np.asarray(value, np.float64)
        if self.metric.logarithmic:
            scaled = np.log(np.maximum(scaled, 1e-12))
        return -scaled if self.direction is Direction.MAXIMIZE else scaled

    def minimised_std(self, value: ArrayLike, std: ArrayLike) -> Any:
        """Standard deviation of `minimised(value)` for one of `value`, to first order."""
        spread = np.asarray(std, np.float64)
        if self.metric.logarithmic:
            return spread / np.maximum(np.asarray(value, np.float64), 1e-12)
        return spread


class Constraint(_Measured):
    """Bounds of a metric, for example `{name: latency, max: 0.5, unit: ms}`.

    Attributes:
        name: One of `METRICS`.
        unit: Unit of the bounds.
        min: Least allowed value.
        max: Greatest allowed value.
    """

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        bounds = [b for b in (self.min, self.max) if b is not None]
        if not bounds:
            raise ValueError(f"constraint on {self.name!r} has no bound; give min, max or both")
        if not all(np.isfinite(b) and b >= 0 for b in bounds):
            raise ValueError(f"bounds of {self.name!r} must be finite and at least 0, got {bounds}")
        if len(bounds) == 2 and bounds[0] > bounds[1]:
            raise ValueError(f"min {bounds[0]} of {self.name!r} is above its max {bounds[1]}")
        if self.max == 0 and self.metric.logarithmic:
            raise ValueError(f"max 0 {self.unit} of {self.name!r} cannot be met; give more than 0")
        largest = float(self.in_unit(self.metric.largest))
        if self.min is not None and self.min > largest:
            raise ValueError(
                f"min {self.min} {self.unit} of {self.name!r} cannot be met; "
                f"the largest possible value is {largest:g} {self.unit}"
            )
        return self

    @property
    def key(self) -> str:
        """What it demands, for example `latency <= 0.5 ms`."""
        parts = [f"{self.min:g} <="] if self.min is not None else []
        parts.append(self.name)
        parts += [f"<= {self.max:g}"] if self.max is not None else []
        return " ".join([*parts, self.unit])

    def violation(self, value: ArrayLike) -> Any:
        """By how much a value in base units misses the bounds, relative to the bound; 0 when met.

        A bound of 0 is missed by the absolute amount. NaN violates infinitely.
        """
        shown = self.in_unit(value)
        amount = np.zeros_like(shown)
        if self.max is not None:
            amount = np.maximum(amount, (shown - self.max) / (abs(self.max) or 1.0))
        if self.min is not None:
            amount = np.maximum(amount, (self.min - shown) / (abs(self.min) or 1.0))
        return np.where(np.isnan(amount), np.inf, amount)


def check_constraints(constraints: Sequence[Constraint]) -> None:
    """Make sure that all bounds of each metric can be met together, whatever their units.

    Raises:
        ObjectiveError: Two of them contradict each other.
    """
    for name in dict.fromkeys(constraint.name for constraint in constraints):
        own = [constraint for constraint in constraints if constraint.name == name]
        lower = [(float(c.in_base(c.min)), c) for c in own if c.min is not None]
        upper = [(float(c.in_base(c.max)), c) for c in own if c.max is not None]
        if not lower or not upper:
            continue
        least, first = max(lower, key=lambda bound: bound[0])
        greatest, second = min(upper, key=lambda bound: bound[0])
        # One value in two units differs by the rounding of the conversion.
        if least > greatest and not np.isclose(least, greatest, rtol=1e-9, atol=0):
            raise ObjectiveError(
                f"no subnet can meet both constraints on {name!r}: {first.key} and {second.key}"
            )


@dataclass(frozen=True)
class Problem:
    """All objectives and constraints of a search, applied to whole arrays of metrics.

    Attributes:
        objectives: At least one.
        constraints: Any number; a subnet is feasible when its violation is 0.

    Raises:
        ObjectiveError: No objective, or constraints that contradict each other.
    """

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()

    def __post_init__(self) -> None:
        if not self.objectives:
            raise ObjectiveError("a search needs at least one objective, got none")
        check_constraints(self.constraints)

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics that it reads, each once."""
        return tuple(dict.fromkeys(m.name for m in (*self.objectives, *self.constraints)))

    @property
    def directions(self) -> list[str]:
        """For `optuna.create_study(directions=...)`."""
        return [str(objective.direction) for objective in self.objectives]

    def minimised(self, metrics: Metrics) -> FloatArray:
        """Objectives (n, m), smaller is better, of metrics in base units, (n,) each."""
        return np.stack([o.minimised(metrics[o.name]) for o in self.objectives], axis=-1)

    def violation(self, metrics: Metrics) -> FloatArray:
        """Summed relative constraint violation (n,); 0 where feasible."""
        count = len(metrics[self.objectives[0].name])
        total = np.zeros(count)
        for constraint in self.constraints:
            total += constraint.violation(metrics[constraint.name])
        return total

    def values(self, metrics: Mapping[str, float]) -> list[float]:
        """One subnet's objectives in their own units, as a trial stores them."""
        return [float(o.in_unit(metrics[o.name])) for o in self.objectives]

    def violations(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """One subnet's violation of every constraint by its key, as a trial stores them."""
        return {c.key: float(c.violation(metrics[c.name])) for c in self.constraints}

    def minimised_values(self, values: Sequence[Sequence[float]]) -> FloatArray:
        """Objectives (n, m), smaller is better, of stored trial values (n, m)."""
        array = np.asarray(values, np.float64).reshape(-1, len(self.objectives))
        columns = [o.minimised(o.in_base(array[:, k])) for k, o in enumerate(self.objectives)]
        return np.stack(columns, axis=-1)
