"""When a binary counts as equal to its extracted module.

Integer accumulators are exact, but the float epilogues of a kernel and of PyTorch round
differently, so a requantised value may land one step away: at most 1 step in at most 0.01 % of a
kernel's outputs. Logits see the few steps that happened above them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from compilers.errors import MismatchError
from spaces.layer_spec import LayerSpec

FLOAT_TOLERANCE = 1e-4
"""Largest difference of logits, relative to the largest logit, of a subnet in float32."""

INTEGER_TOLERANCE = 3e-2
"""The same for a subnet with quantised layers."""

MAX_STEP_FRACTION = 1e-4
"""Share of a kernel's uint8 outputs that may differ, by one step."""


def tolerance(specs: Iterable[LayerSpec]) -> float:
    """The allowed difference of logits, relative to the largest logit."""
    quantised = any(spec.precision.activation is not None for spec in specs)
    return INTEGER_TOLERANCE if quantised else FLOAT_TOLERANCE


def compare(
    found: NDArray[np.float32], expected: NDArray[np.float32], allowed: float
) -> float:
    """The largest difference of two arrays of logits, relative to the largest expected one.

    Raises:
        MismatchError: It exceeds `allowed`, shapes differ, or a value is not a number.
    """
    if found.shape != expected.shape:
        raise MismatchError(f"the binary returns shape {found.shape}, not {expected.shape}")
    difference = float(np.abs(found - expected).max()) / max(float(np.abs(expected).max()), 1e-6)
    if not difference <= allowed:
        raise MismatchError(
            f"the binary's logits differ by {difference:.2e} of the largest; allowed: {allowed:g}"
        )
    return difference
