"""Attention and MLP on the pixels of a map, as in LeViT (Graham et al. 2021) and ElasticViT (Tang
et al. 2023): all linear layers are 1x1 convolutions with BatchNorm, which costs nothing once it is
folded.

With LayerNorm instead, a block normalises what it reads (pre-norm, Xiong et al. 2020, "On Layer
Normalization in the Transformer Architecture") and its convolutions have biases. Its shortcut is
what it reads itself, unnormalised and in float32.
"""

from __future__ import annotations

from typing import Literal

from spaces.families.base import Values
from spaces.layer_spec import Activation, LayerSpec, Operator
from spaces.quant_scheme import site_precision

HEAD_CHANNELS = 16
"""Of a query or key of one head, and of the residual stream per head."""

VALUE_KERNEL = 3

Norm = Literal["batch", "layer"]
"""BatchNorm behind every convolution of a block, or one LayerNorm in front of them."""


def attention_layers(
    site: str,
    width: int,
    heads: int,
    value_scale: int,
    size: int,
    values: Values,
    norm: Norm = "batch",
) -> tuple[LayerSpec, ...]:
    """The layers of attention with its shortcut, on a map of `size` x `size` pixels."""
    value_channels = heads * HEAD_CHANNELS * value_scale
    channels = 2 * heads * HEAD_CHANNELS + value_channels
    return (
        *_norm(site, width, size, norm),
        LayerSpec(
            f"{site}.qkv",
            Operator.CONV,
            width,
            channels,
            size,
            size,
            precision=site_precision(values, f"{site}.qkv"),
            heads=heads,
        ),
        LayerSpec(
            f"{site}.core",
            Operator.ATTENTION,
            channels,
            value_channels,
            size,
            size,
            VALUE_KERNEL,
            activation=Activation.HARDSWISH,
            heads=heads,
        ),
        LayerSpec(
            f"{site}.project",
            Operator.CONV,
            value_channels,
            width,
            size,
            size,
            precision=site_precision(values, f"{site}.project"),
            residual=True,
            heads=heads,
        ),
    )


def mlp_layers(
    site: str, width: int, hidden: int, size: int, values: Values, norm: Norm = "batch"
) -> tuple[LayerSpec, ...]:
    """The layers of a transformer's MLP with its shortcut, on a map of `size` x `size` pixels."""
    return (
        *_norm(site, width, size, norm),
        LayerSpec(
            f"{site}.expand",
            Operator.CONV,
            width,
            hidden,
            size,
            size,
            activation=Activation.HARDSWISH,
            precision=site_precision(values, f"{site}.expand"),
        ),
        LayerSpec(
            f"{site}.project",
            Operator.CONV,
            hidden,
            width,
            size,
            size,
            precision=site_precision(values, f"{site}.project"),
            residual=True,
        ),
    )


def _norm(site: str, width: int, size: int, norm: Norm) -> tuple[LayerSpec, ...]:
    """The LayerNorm in front of a block; none with BatchNorm, which is folded."""
    if norm == "batch":
        return ()
    return (LayerSpec(f"{site}.norm", Operator.LAYER_NORM, width, width, size, size),)
