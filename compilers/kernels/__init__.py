"""Deterministic kernel templates behind one contract (`compilers.kernels.base`)."""

from compilers.kernels.attention import Attention
from compilers.kernels.conv import Conv
from compilers.kernels.depthwise import Depthwise
from compilers.kernels.elementwise import Dequantize, Quantize, QuantizeImage
from compilers.kernels.gemm import Gemm
from compilers.kernels.norm import Norm
from compilers.kernels.pointwise import Binary, Unary
from compilers.kernels.pool import AvgPool, MaxPool
from compilers.kernels.rows import Concat, Copy, Embedding
from compilers.kernels.softmax import Softmax
from compilers.kernels.squeeze_excite import GlobalPool, SqueezeExcite
from compilers.kernels.weight_only import WeightOnlyGemm

__all__ = [
    "Attention",
    "AvgPool",
    "Binary",
    "Concat",
    "Conv",
    "Copy",
    "Depthwise",
    "Dequantize",
    "Embedding",
    "Gemm",
    "GlobalPool",
    "MaxPool",
    "Norm",
    "Quantize",
    "QuantizeImage",
    "Softmax",
    "SqueezeExcite",
    "Unary",
    "WeightOnlyGemm",
]
