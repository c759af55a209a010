"""Config samplers, found by name in `SAMPLERS`; bit samplers in `BIT_SAMPLERS`."""

from __future__ import annotations

from supernet.samplers.base import SAMPLERS, ConfigSampler, SamplerConfig
from supernet.samplers.bits import BIT_SAMPLERS, BitSampler, BitsConfig, UniformBits
from supernet.samplers.bits_hessian import HessianBits, HessianBitsConfig
from supernet.samplers.bits_triangle import TriangleBits, TriangleBitsConfig
from supernet.samplers.complexity import ComplexityConfig, ComplexitySampler
from supernet.samplers.draw import Draw, Role
from supernet.samplers.nested import NestedConfig, NestedSampler
from supernet.samplers.performance import PerformanceConfig, PerformanceSampler
from supernet.samplers.sandwich import SandwichConfig, SandwichSampler
from supernet.samplers.uniform import UniformConfig, UniformSampler

__all__ = [
    "BIT_SAMPLERS",
    "SAMPLERS",
    "BitSampler",
    "BitsConfig",
    "ComplexityConfig",
    "ComplexitySampler",
    "ConfigSampler",
    "Draw",
    "HessianBits",
    "HessianBitsConfig",
    "NestedConfig",
    "NestedSampler",
    "PerformanceConfig",
    "PerformanceSampler",
    "Role",
    "SamplerConfig",
    "SandwichConfig",
    "SandwichSampler",
    "TriangleBits",
    "TriangleBitsConfig",
    "UniformBits",
    "UniformConfig",
    "UniformSampler",
]
