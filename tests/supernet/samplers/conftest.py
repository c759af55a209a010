"""The space on which samplers are tested."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def space(plain):
    return plain()
