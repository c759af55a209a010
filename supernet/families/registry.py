"""Registry of supernets: family name -> class."""

from __future__ import annotations

from spaces.registry import Registry
from spaces.space import SearchSpace
from supernet.quantizers import PER_FORM
from supernet.supernet import Supernet

SUPERNETS: Registry[type[Supernet]] = Registry("supernet family", "netcarve.supernets")


def build_supernet(space: SearchSpace, quantizer: str = PER_FORM) -> Supernet:
    """A supernet with random weights (from torch's global generator) for `space`.

    Args:
        space: The search space.
        quantizer: What its quantisation forms share, a name of `supernet.quantizers.QUANTIZERS`.

    Raises:
        UnknownNameError: No supernet is registered for the space's family, or no such quantiser.
        SupernetConfigError: The quantiser cannot have a scheme of the space.
    """
    supernet = SUPERNETS.get(space.family.name)(space)
    if quantizer != supernet.quantizer:
        supernet.use_quantizer(quantizer)
    return supernet
