"""DeviceCapabilities: what a device really executes, as its probe found it."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from spaces.layer_spec import Operator
from spaces.quant_scheme import FP32, PRECISIONS

PROBED = frozenset(
    (operator, name)
    for operator in Operator
    for name, precision in PRECISIONS.items()
    if (not precision.weight_only or operator is Operator.LINEAR)
    and (precision == FP32 or operator is not Operator.ATTENTION)
)
"""What a probe asks for: every operator in every precision that its layers can have."""


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
