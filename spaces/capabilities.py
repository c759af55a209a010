"""DeviceCapabilities: what a device really executes, as its probe found it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from spaces.dimension import Choice, Dimension, DimensionKind
from spaces.layer_spec import Operator
from spaces.quant_scheme import (
    ACTIVATION_SYMMETRY,
    FLOAT_BITS,
    FP32,
    PRECISIONS,
    WEIGHT_GRANULARITY,
    WEIGHT_SYMMETRY,
    LayerPrecision,
    precision,
)

_FLOAT_ONLY = frozenset({Operator.ATTENTION, Operator.LAYER_NORM})

PROBED = frozenset(
    (operator, name)
    for operator in Operator
    for name, found in PRECISIONS.items()
    if (not found.weight_only or operator is Operator.LINEAR)
    and (found == FP32 or operator not in _FLOAT_ONLY)
)
"""What a probe asks for: every operator in every precision that its layers can have."""

CHOSEN_OPERATORS = {DimensionKind.SQUEEZE_EXCITE: Operator.SQUEEZE_EXCITE}
"""Operators that a choice adds; without them a device executes the choice 0."""


@dataclass(frozen=True, slots=True)
class DeviceCapabilities:
    """Operators and quantisation schemes that a device executes.

    Attributes:
        isa: Instruction set that is compiled for, for example `avx2`.
        threads: Threads that one inference uses.
        batch: Inputs per inference.
        operators: Operators with a kernel on this device.
        schemes: Names of precisions (`fp32`, `w4a8`) that execute in their declared width; a
            precision that would only be emulated is not listed.
        hardware: Human-readable name of the processor.
    """

    isa: str
    threads: int
    batch: int
    operators: frozenset[Operator]
    schemes: frozenset[str]
    hardware: str = ""

    def executed_choices(self, dimension: Dimension) -> tuple[Choice, ...]:
        """The choices of a dimension that the device executes: those that some precision of it
        has; 0 alone where the others add an operator that it lacks; all of any other dimension.

        On a device without integer layers the input bits and the form say nothing: the first
        choice is left.
        """
        added = CHOSEN_OPERATORS.get(dimension.kind)
        if added is not None and added not in self.operators:
            return tuple(choice for choice in dimension.choices if choice == 0)
        found = [precision(name) for name in self.schemes]
        executed = _executed(dimension, found)
        kept = tuple(choice for choice in dimension.choices if choice in executed)
        moot = dimension.kind is not DimensionKind.W_BITS and not any(p.integer for p in found)
        return kept or (dimension.choices[:1] if moot else ())

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` turns back into equal capabilities."""
        return {
            "isa": self.isa,
            "threads": self.threads,
            "batch": self.batch,
            "operators": sorted(map(str, self.operators)),
            "schemes": sorted(self.schemes),
            "hardware": self.hardware,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DeviceCapabilities:
        """The capabilities that `to_json` described."""
        return cls(
            isa=str(data["isa"]),
            threads=int(data["threads"]),
            batch=int(data["batch"]),
            operators=frozenset(map(Operator, data["operators"])),
            schemes=frozenset(data["schemes"]),
            hardware=str(data["hardware"]),
        )


def executed_schemes(operators: Set[Operator], passed: Set[tuple[Operator, str]]) -> frozenset[str]:
    """The precisions in which all `operators` that can have them execute.

    Args:
        operators: Those of the device.
        passed: Those of `PROBED` that execute.
    """
    found = set()
    for name in PRECISIONS:
        asked = {(operator, name) for operator in operators} & PROBED
        if asked and asked <= passed:
            found.add(name)
    return frozenset(found)


def _executed(dimension: Dimension, precisions: Sequence[LayerPrecision]) -> Set[Choice]:
    """What any of the precisions has where `dimension` chooses."""
    weights = [p.weight for p in precisions if p.integer and p.weight is not None]
    inputs = [p.activation for p in precisions if p.integer and p.activation is not None]
    only = [p.weight for p in precisions if p.weight_only and p.weight is not None]
    if dimension.kind is DimensionKind.W_BITS:
        fp32 = {FLOAT_BITS for p in precisions if p.weight is None}
        return {*(w.bits for w in weights), *fp32}
    if dimension.kind is DimensionKind.A_BITS:
        fp32 = {FLOAT_BITS for p in precisions if p.activation is None}
        return {*(a.bits for a in inputs), *fp32}
    if dimension.kind is DimensionKind.GRANULARITY:
        whole = dimension.name == WEIGHT_GRANULARITY
        return {w.granularity_name for w in (weights if whole else only)}
    if dimension.name == WEIGHT_SYMMETRY:
        return {w.symmetry for w in weights}
    if dimension.name == ACTIVATION_SYMMETRY:
        return {a.symmetry for a in inputs}
    return set(dimension.choices)
