"""Registry of supernets: family name -> class."""

from __future__ import annotations

from spaces.registry import Registry
from spaces.space import SearchSpace
from supernet.supernet import Supernet

SUPERNETS: Registry[type[Supernet]] = Registry("supernet family", "netcarve.supernets")


def build_supernet(space: SearchSpace) -> Supernet:
    """A supernet with random weights (from torch's global generator) for `space`.

    Raises:
        UnknownNameError: No supernet is registered for the space's family.
    """
    return SUPERNETS.get(space.family.name)(space)
