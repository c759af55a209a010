"""Which channels of a network of residual blocks may be reordered together."""

from __future__ import annotations

from collections.abc import Iterable

from supernet.elastic.attention import ElasticAttention
from supernet.elastic.block import ElasticInvertedResidual
from supernet.elastic.layer import ElasticConvLayer, ElasticLayer
from supernet.elastic.layer_norm import ElasticLayerNorm
from supernet.elastic.mlp import ElasticMlp
from supernet.supernet import ChannelGroup

Block = ElasticInvertedResidual | ElasticAttention | ElasticMlp


def stream_groups(
    name: str, stem: ElasticConvLayer, blocks: Iterable[Block], head: ElasticConvLayer
) -> list[ChannelGroup]:
    """The residual stream of every stage, and the hidden channels of every block.

    A stage's stream is written by the blocks whose sites begin with its name, and read by those
    of them that follow and by the first block of the next stage. Where the largest of that block
    has a shortcut, both stages have one stream.

    Args:
        name: Of the stream that `stem` writes.
        stem: What comes before the blocks.
        blocks: In the order of execution.
        head: What reads the last stream.
    """
    groups: list[ChannelGroup] = []
    current, writers, readers, gates = name, [stem], list[ElasticLayer](), list[ElasticLayer]()
    normed: list[tuple[ElasticLayer, ElasticLayerNorm]] = []

    def stream(*last: ElasticLayer) -> ChannelGroup:
        every = (*readers, *last)
        return ChannelGroup(name, tuple(writers), every, tuple(gates), tuple(normed))

    for block in blocks:
        readers.append(_first(block))
        if not isinstance(block, ElasticInvertedResidual) and block.norm is not None:
            gates.append(block.norm)
            normed.append((readers[-1], block.norm))
        if isinstance(block, ElasticInvertedResidual) and block.expand is None:
            # Each of its depthwise convolution's channels is one of the stream that it reads.
            writers.append(block.depthwise)
            gates += () if block.se is None else (block.se,)
        stage = block.site.partition(".")[0]
        if stage != current and not _adds_its_input(block):
            groups.append(stream())
            name, writers, readers, gates, normed = stage, [], [], [], []
        current = stage
        if isinstance(block, ElasticInvertedResidual) and block.expand is not None:
            gate = () if block.se is None else (block.se,)
            inside = (block.expand, block.depthwise)
            groups.append(ChannelGroup(block.site, inside, (block.project,), gate))
        elif isinstance(block, ElasticMlp):
            groups.append(ChannelGroup(block.site, (block.expand,), (block.project,)))
        writers.append(block.project)
    groups.append(stream(head))
    return groups


def _adds_its_input(block: Block) -> bool:
    return isinstance(block, ElasticInvertedResidual) and block.project.options.largest.residual


def _first(block: Block) -> ElasticConvLayer:
    """The layer that mixes the channels which the block reads."""
    if isinstance(block, ElasticAttention):
        return block.qkv
    if isinstance(block, ElasticMlp):
        return block.expand
    return block.project if block.expand is None else block.expand
