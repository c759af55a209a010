"""Deterministic kernel templates behind one contract (`compilers.kernels.base`)."""

from compilers.kernels.conv import Conv
from compilers.kernels.depthwise import Depthwise
from compilers.kernels.elementwise import Dequantize, Quantize
from compilers.kernels.gemm import Gemm
from compilers.kernels.pool import AvgPool, MaxPool
from compilers.kernels.squeeze_excite import GlobalPool, SqueezeExcite
from compilers.kernels.weight_only import WeightOnlyGemm

__all__ = [
    "AvgPool",
    "Conv",
    "Depthwise",
    "Dequantize",
    "Gemm",
    "GlobalPool",
    "MaxPool",
    "Quantize",
    "SqueezeExcite",
    "WeightOnlyGemm",
]
