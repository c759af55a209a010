"""Importance-ordered channels: a narrow subnet keeps the channels that matter most.

Sorting permutes writers and readers of the same channels alike, so that the largest network
computes what it computed before (Cai et al. 2020; L1 importance as in Li et al. 2017, weighted by
the BatchNorm scale as in Liu et al. 2017, "Network Slimming", or without BatchNorm by the L1 norm
of what writes a channel, and by the gain of a LayerNorm through which it is read).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from supernet.elastic.layer import (
    ElasticConvLayer,
    ElasticLayer,
    ElasticLinearLayer,
    ElasticSqueezeExciteLayer,
)
from supernet.elastic.layer_norm import ElasticLayerNorm
from supernet.elastic.norm import ElasticBatchNorm2d
from supernet.supernet import ChannelGroup, Supernet

Order = Callable[[ChannelGroup], Tensor]


@torch.no_grad()
def channel_importance(group: ChannelGroup) -> Tensor:
    """float32 [channels]: how much the readers get from a channel, |gamma| times the L1 norm of
    the weights that read it, summed over writers and readers after normalisation to mean 1.

    A reader behind a LayerNorm gets |gain| times as much."""
    norms = dict(group.normed)
    read = torch.zeros(())
    for reader in group.readers:
        norm = norms.get(reader)
        weights = _read_norm(reader)
        read = read + _relative(weights if norm is None else weights * norm.weight.abs())
    # The last writer of an inverted residual's inside is its depthwise convolution: gammas of
    # all writers count, since each scales what the reader sees.
    written = sum((_relative(_write_norm(writer)) for writer in group.writers), torch.zeros(()))
    return read * written


def importance_order(group: ChannelGroup) -> Tensor:
    """int64 [channels]: channels by falling importance; ties keep their order."""
    return torch.argsort(channel_importance(group), descending=True, stable=True)


@torch.no_grad()
def reorder_channels(supernet: Supernet, order: Order = importance_order) -> None:
    """Permute every channel group by `order`; the largest network's outputs do not change.

    Quantisers must be calibrated afterwards, since their scales index channels.

    Args:
        supernet: Changed in place.
        order: Group -> permutation; default: by falling importance.
    """
    for group in supernet.channel_groups():
        permutation = order(group)
        for writer in group.writers:
            writer.conv.permute_outputs(permutation)
            writer.norm.permute(permutation)
        for gate in group.gates:
            assert isinstance(gate, ElasticSqueezeExciteLayer | ElasticLayerNorm)
            scales = gate if isinstance(gate, ElasticLayerNorm) else gate.squeeze_excite
            scales.permute_channels(permutation)
        for reader in group.readers:
            _permute_inputs(reader, permutation)
    for layer in supernet.layers().values():
        if isinstance(layer, ElasticSqueezeExciteLayer):
            inner = layer.squeeze_excite
            strength = inner.reduce_weight.abs().sum(1) * inner.expand_weight.abs().sum(0)
            inner.permute_hidden(torch.argsort(strength, descending=True, stable=True))


def _relative(values: Tensor) -> Tensor:
    return values / values.mean().clamp(min=1e-12)


def _write_norm(writer: ElasticConvLayer) -> Tensor:
    if isinstance(writer.norm, ElasticBatchNorm2d):
        return writer.norm.weight.abs()
    return writer.conv.weight.abs().sum((1, 2, 3))


def _read_norm(reader: ElasticLayer) -> Tensor:
    if isinstance(reader, ElasticLinearLayer):
        return reader.linear.weight.abs().sum(0)
    assert isinstance(reader, ElasticConvLayer)
    return reader.conv.weight.abs().sum((0, 2, 3))


def _permute_inputs(reader: ElasticLayer, permutation: Tensor) -> None:
    if isinstance(reader, ElasticLinearLayer):
        reader.linear.permute_inputs(permutation)
    else:
        assert isinstance(reader, ElasticConvLayer)
        reader.conv.permute_inputs(permutation)
