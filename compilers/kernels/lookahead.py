"""Reading weights ahead of their use.

In an inference the weights of all layers pass through the caches once, so each kernel finds its
own in memory or in a slow shared cache. A product that keeps one panel (the weights of a group of
output vectors) while it passes over all rows has time enough to fetch the next panel meanwhile.
"""

from __future__ import annotations

import numpy as np

from compilers.intrinsics import prefetch
from compilers.kernels.emitter import Buffer, Emitter, Index

LINE_BYTES = 64

FAR_BYTES = 256 << 10
"""Weights that are worth it. Fewer arrive faster than the instructions that fetch them cost."""


def fetch_part(
    em: Emitter, buffer: Buffer, start: Index, size: int, part: Index, parts: int
) -> None:
    """Begin to move a part of consecutive elements to the second-level cache.

    The parts together cover the elements; what they cover beyond is harmless, also behind the
    buffer. A part smaller than a cache line is fetched with its whole line.

    Args:
        em: where to emit.
        buffer: the tensor, its elements in the order of memory.
        start: first element.
        size: elements.
        part: which part, from 0.
        parts: how many there are.
    """
    line = LINE_BYTES // np.dtype(buffer.dtype).itemsize
    share = -(-size // parts)
    lines = -(-share // line)
    if lines > 1:
        share = lines * line
    for i in range(lines):
        element = start + part * share + i * line
        em.emit(prefetch(buffer, [*[0] * (len(buffer.shape) - 1), element], locality=2))
