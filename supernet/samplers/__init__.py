"""Config samplers, found by name in `SAMPLERS`; bit samplers in `BIT_SAMPLERS`."""

from __future__ import annotations

from supernet.samplers.base import SAMPLERS, ConfigSampler, SamplerConfig
from supernet.samplers.bits import BIT_SAMPLERS, BitSampler, BitsConfig, UniformBits
from supernet.samplers.draw import Draw, Role
from supernet.samplers.nested import NestedConfig, NestedSampler
from supernet.samplers.sandwich import SandwichConfig, SandwichSampler
from supernet.samplers.uniform import UniformConfig, UniformSampler

__all__ = [
    "BIT_SAMPLERS",
    "SAMPLERS",
    "BitSampler",
    "BitsConfig",
    "ConfigSampler",
    "Draw",
    "NestedConfig",
    "NestedSampler",
    "Role",
    "SamplerConfig",
    "SandwichConfig",
    "SandwichSampler",
    "UniformBits",
    "UniformConfig",
    "UniformSampler",
]
