"""Update rules, found by name in `UPDATES`."""

from __future__ import annotations

from supernet.updates.accumulate import AccumulateConfig, AccumulateUpdate
from supernet.updates.base import UPDATES, UpdateConfig, UpdateRule
from supernet.updates.clipping import clip_gradients
from supernet.updates.per_precision import PerPrecisionConfig, PerPrecisionUpdate

__all__ = [
    "UPDATES",
    "AccumulateConfig",
    "AccumulateUpdate",
    "PerPrecisionConfig",
    "PerPrecisionUpdate",
    "UpdateConfig",
    "UpdateRule",
    "clip_gradients",
]
