"""When a binary counts as equal to its extracted module.

Integer accumulators are exact, but the float epilogues of a kernel and of PyTorch round
differently, so a requantised value may land one step away. Two checks follow from that:

- every kernel's result against the module's operators applied to the *same* inputs: float32
  within `FLOAT_TOLERANCE`, uint8 at most 1 step away in at most `MAX_STEP_FRACTION`;
- the logits of the whole binary against the module's. A step early in an untrained network grows
  on its way to the logits, so their tolerance is wide and the first check is the sharp one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compilers.errors import MismatchError
from spaces.layer_spec import LayerSpec

if TYPE_CHECKING:
    from compilers.graph import Graph

FLOAT_TOLERANCE = 1e-4
"""Largest difference of float32 values, relative to the largest value of their tensor."""

INTEGER_TOLERANCE = 0.1
"""Largest difference of the logits of a subnet with quantised layers, relative to the largest."""

MAX_STEP_FRACTION = 1e-4
"""Share of a binary's uint8 values that may differ, by one step."""

MIN_STEPS = 4
"""Values that may differ however few there are: the share of a small sample is not a share."""


def tolerance(specs: Iterable[LayerSpec]) -> float:
    """The allowed difference of logits, relative to the largest logit."""
    quantised = any(spec.precision.activation is not None for spec in specs)
    return INTEGER_TOLERANCE if quantised else FLOAT_TOLERANCE


def compare(
    found: NDArray[np.float32],
    expected: NDArray[np.float32],
    allowed: float,
    what: str = "the binary",
) -> float:
    """The largest difference of two arrays of logits, relative to the largest expected one.

    Args:
        found: Logits [n, classes].
        expected: What they should be.
        allowed: Largest difference.
        what: Where `found` comes from, for the message.

    Raises:
        MismatchError: It exceeds `allowed`, shapes differ, or a value is not a number.
    """
    if found.shape != expected.shape:
        raise MismatchError(f"{what} returns shape {found.shape}, not {expected.shape}")
    difference = float(np.abs(found - expected).max()) / max(float(np.abs(expected).max()), 1e-6)
    if not difference <= allowed:
        raise MismatchError(
            f"the logits of {what} differ by {difference:.2e} of the largest; allowed: {allowed:g}"
        )
    return difference


class LayerCheck:
    """Compares every tensor that a binary stores with the module's operators.

    Each operator is given the *binary's* inputs, so that every difference is the kernel's own.

    Attributes:
        values: uint8 values compared so far.
        steps: Those that were one step away.
    """

    def __init__(self, graph: Graph) -> None:
        from compilers.storage import store

        self.graph = graph
        self.views = store(graph).views
        self.values = 0
        self.steps = 0

    def __call__(self, x: NDArray[Any], stored: Mapping[str, NDArray[np.generic]]) -> None:
        """Compare the tensors of one run.

        Args:
            x: The input, batch 1.
            stored: Name of the graph's value -> what the binary stored, [rows, columns].

        Raises:
            MismatchError: A kernel's result differs by more than is allowed; names its module.
        """
        import torch

        from compilers.reference import constants, evaluate, from_stored

        values = {**constants(self.graph), self.graph.input: torch.from_numpy(x)}
        with torch.inference_mode():
            for op in self.graph.ops:
                expected = evaluate(op, *(values[name] for name in op.inputs))
                if op.name in stored:
                    found = from_stored(stored[op.name], self.views[op.name])
                    self._tensor(op.site, found.numpy(), expected.numpy())
                    expected = found
                values[op.name] = expected

    def _tensor(self, site: str, found: NDArray[np.generic], expected: NDArray[np.generic]) -> None:
        if found.dtype != expected.dtype:
            raise MismatchError(f"{site} is stored as {found.dtype}, not {expected.dtype}")
        difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
        if found.dtype != np.uint8:
            relative = float(difference.max() / max(float(np.abs(expected).max()), 1e-6))
            if not relative <= FLOAT_TOLERANCE:
                raise MismatchError(
                    f"{site} differs by {relative:.1e} of its largest value; "
                    f"allowed: {FLOAT_TOLERANCE:g}"
                )
            return
        self.values += difference.size
        self.steps += int((difference > 0).sum())
        if difference.max() > 1 or self.steps > max(MIN_STEPS, MAX_STEP_FRACTION * self.values):
            raise MismatchError(
                f"{site} differs by up to {difference.max():.0f} steps; {self.steps} of "
                f"{self.values} values so far differ. Allowed: 1 step in {MAX_STEP_FRACTION:.2%}"
            )
