"""Rows of configs that are the same config."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from predictors.latency.configs import Configs

NOT_FOUND = -1


def positions(configs: Configs, among: Configs) -> NDArray[np.int64]:
    """Where each config stands among others of its schema.

    Returns:
        int64 (n,): the first row of `among` with the same codes, `NOT_FOUND` where there is none.
    """
    joined = np.concatenate([among.codes, configs.codes])
    _, first, inverse = np.unique(joined, axis=0, return_index=True, return_inverse=True)
    found = first[inverse.reshape(-1)[len(among) :]]
    return np.where(found < len(among), found, NOT_FOUND).astype(np.int64)
