from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from predictors.features import FEATURES, NOMINAL_MS, layer_features
from spaces import get_space

_MACS = np.array([f.term == "macs" for f in FEATURES])
_CALLS = np.array([f.term == "layers" for f in FEATURES])


@pytest.fixture(scope="session")
def space():
    return get_space("mobilenetv3_digits")


@pytest.fixture(scope="session")
def device(space):
    """A made-up device that the features do not describe exactly: channels padded to vector lanes,
    and a layer's time near the larger of compute and memory time. Returns seed -> latency in ms."""

    def make(seed):
        rng = np.random.default_rng(seed)
        lanes = int(rng.choice([8, 16, 32]))
        rates = NOMINAL_MS * np.exp(rng.normal(0, 0.5, len(FEATURES)))

        def pad(channels):
            return -(-channels // lanes) * lanes

        def slot_time(specs):
            total = 0.0
            for spec in specs:
                padded = replace(spec, out_channels=pad(spec.out_channels))
                parts = layer_features((padded,)) * rates
                compute, calls = parts[_MACS].sum(), parts[_CALLS].sum()
                memory = parts.sum() - compute - calls
                total += calls + max(compute, memory) + 0.3 * min(compute, memory)
            return np.array([total])

        return lambda population: space.slot_features(population, slot_time).sum(axis=(1, 2))

    return make
