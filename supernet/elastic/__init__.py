"""Elastic modules: one store of weights, every subnet a view of it."""

from __future__ import annotations

from supernet.elastic.block import ElasticInvertedResidual
from supernet.elastic.conv import ElasticConv2d
from supernet.elastic.layer import (
    ElasticConvLayer,
    ElasticLayer,
    ElasticLinearLayer,
    ElasticSqueezeExciteLayer,
)
from supernet.elastic.linear import ElasticLinear
from supernet.elastic.norm import ElasticBatchNorm2d
from supernet.elastic.options import LayerOptions
from supernet.elastic.residual import ElasticResidualBlock
from supernet.elastic.squeeze_excite import ElasticSqueezeExcite

__all__ = [
    "ElasticBatchNorm2d",
    "ElasticConv2d",
    "ElasticConvLayer",
    "ElasticInvertedResidual",
    "ElasticLayer",
    "ElasticLinear",
    "ElasticLinearLayer",
    "ElasticResidualBlock",
    "ElasticSqueezeExcite",
    "ElasticSqueezeExciteLayer",
    "LayerOptions",
]
