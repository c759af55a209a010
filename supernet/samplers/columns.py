"""Columns of a population by what their dimensions vary."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spaces.dimension import DimensionKind
from spaces.space import SearchSpace

Columns = NDArray[np.bool_]

BITS = frozenset({DimensionKind.W_BITS, DimensionKind.A_BITS})
FORMS = frozenset({DimensionKind.GRANULARITY, DimensionKind.SYMMETRY})
PRECISION = BITS | FORMS
UNORDERED = FORMS | {DimensionKind.BLOCK}
"""Kinds whose choices have no order of size: no choice is the largest."""


def columns(space: SearchSpace, kinds: frozenset[DimensionKind] | DimensionKind) -> Columns:
    """bool (d,): dimensions of these kinds."""
    wanted = frozenset({kinds}) if isinstance(kinds, DimensionKind) else kinds
    return np.array([d.kind in wanted for d in space.dimensions])


def chosen(space: SearchSpace, kinds: frozenset[DimensionKind] | DimensionKind) -> Columns:
    """bool (d,): dimensions of these kinds that have more than one choice."""
    found: Columns = columns(space, kinds) & (space.cardinalities > 1)
    return found
