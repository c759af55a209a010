"""Shared spaces and strategies."""

from __future__ import annotations

import pytest

from spaces import SearchSpace, get_space


@pytest.fixture(scope="session")
def space() -> SearchSpace:
    return get_space("mobilenetv3_digits")
