"""Shared spaces and strategies."""

from __future__ import annotations

import pytest

from spaces import SearchSpace, get_space


@pytest.fixture(scope="session")
def space() -> SearchSpace:
    return get_space("mobilenetv3_digits")


@pytest.fixture(scope="session")
def elastic(space) -> SearchSpace:
    """The elastic quantisation space, with float32 layers besides."""
    settings = {k: v for k, v in space.to_json()["settings"].items() if k != "schemes"} | {
        "w_bits": [2, 3, 4, 8, 32],
        "a_bits": [2, 4, 8],
        "granularity": ["per_tensor", "per_channel", "per_group64"],
        "weight_symmetry": ["symmetric", "asymmetric"],
        "activation_symmetry": ["symmetric", "asymmetric"],
    }
    return SearchSpace.from_json({**space.to_json(), "settings": settings, "choices": None})
