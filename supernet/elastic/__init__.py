"""Elastic modules: one store of weights, every subnet a view of it."""

from __future__ import annotations

from supernet.elastic.affine import ElasticAffine, ElasticBias
from supernet.elastic.attention import (
    ElasticAttention,
    ElasticAttentionLayer,
    ElasticHeadBias,
    ElasticHeadNorm,
    ElasticProjectionConv2d,
    ElasticQkvConv2d,
    ElasticQkvLayer,
)
from supernet.elastic.block import ElasticInvertedResidual
from supernet.elastic.conv import ElasticConv2d
from supernet.elastic.layer import (
    ElasticConvLayer,
    ElasticLayer,
    ElasticLinearLayer,
    ElasticSqueezeExciteLayer,
)
from supernet.elastic.layer_norm import ElasticLayerNorm
from supernet.elastic.linear import ElasticLinear
from supernet.elastic.mlp import ElasticMlp
from supernet.elastic.norm import ElasticBatchNorm2d
from supernet.elastic.options import LayerOptions
from supernet.elastic.residual import ElasticResidualBlock
from supernet.elastic.squeeze_excite import ElasticSqueezeExcite

__all__ = [
    "ElasticAffine",
    "ElasticAttention",
    "ElasticAttentionLayer",
    "ElasticBatchNorm2d",
    "ElasticBias",
    "ElasticConv2d",
    "ElasticConvLayer",
    "ElasticHeadBias",
    "ElasticHeadNorm",
    "ElasticInvertedResidual",
    "ElasticLayer",
    "ElasticLayerNorm",
    "ElasticLinear",
    "ElasticLinearLayer",
    "ElasticMlp",
    "ElasticProjectionConv2d",
    "ElasticQkvConv2d",
    "ElasticQkvLayer",
    "ElasticResidualBlock",
    "ElasticSqueezeExcite",
    "ElasticSqueezeExciteLayer",
    "LayerOptions",
]
