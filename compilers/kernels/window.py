"""Windows at the border of an image: clipped for floats, padded copies for integers.

A pixel outside the image stands for the real value 0, which is the zero point in uint8. With the
border in memory, no tap of an integer window is special, and the sum of the weights times the
zero point is the same for every pixel, so that it can be folded into the bias.
"""

from __future__ import annotations

from collections.abc import Callable

from compilers.kernels.emitter import (
    Buffer,
    Emitter,
    Expr,
    Index,
    cast,
    load,
    maximum,
    minimum,
)

_COPY_BYTES = 32


def window_rows(
    em: Emitter, oh: Index, height: int, kernel: int, stride: int
) -> tuple[Index, Index]:
    """(first, count) of the window's rows that lie inside the image at output row `oh`."""
    pad = kernel // 2
    if isinstance(oh, int):
        first = max(0, pad - oh * stride)
        return first, min(kernel, height + pad - oh * stride) - first
    first = em.let(maximum(pad - oh * stride, 0))
    return first, em.let(minimum(height + pad - oh * stride, kernel) - first)


def fill_border(
    em: Emitter,
    target: Buffer,
    size: tuple[int, int],
    channels: int,
    border: int,
    value: Callable[[int], Expr],
    dtype: str,
) -> None:
    """Store the zero point around an image of `size` inside `target` [(H+2b) * (W+2b), C].

    Args:
        em: where to emit.
        target: the bordered image.
        size: height and width without the border, pixels.
        channels: columns of `target`.
        border: pixels on each side.
        value: lanes -> int32 vector of the zero point.
        dtype: element type of `target`.
    """
    height, width = size
    full = width + 2 * border

    def pixels(first: Index, count: int) -> None:
        def pixel(i: Index) -> None:
            def piece(channel: Index, lanes: int) -> None:
                em.store(target, [first + i, channel], cast(value(lanes), dtype, lanes), lanes)

            em.pieces(channels, _COPY_BYTES, piece)

        em.loop(count, pixel)

    # Top with the first row's left border; between rows right and left border touch in memory.
    pixels(0, border * full + border)
    if height > 1:
        em.loop(height - 1, lambda row: pixels((border + row) * full + border + width, 2 * border))
    pixels((border + height - 1) * full + border + width, border * full + border)


def padded_copy(
    em: Emitter,
    x: Buffer,
    shape: tuple[int, int, int],
    border: int,
    value: Callable[[int], Expr],
    dtype: str,
) -> Buffer:
    """The image `x` [H * W, C] with a border, [(H + 2b) * (W + 2b), C], converted to `dtype`."""
    height, width, channels = shape
    full = width + 2 * border
    target = em.scratch(((height + 2 * border) * full, channels), dtype)
    if border:
        fill_border(em, target, (height, width), channels, border, value, dtype)

    def row(h: Index) -> None:
        def column(w: Index) -> None:
            def piece(channel: Index, lanes: int) -> None:
                values = load(x, [h * width + w, channel], lanes)
                pixel = (h + border) * full + border + w
                em.store(target, [pixel, channel], cast(values, dtype, lanes), lanes)

            em.pieces(channels, _COPY_BYTES, piece)

        em.loop(width, column)

    em.loop(height, row)
    return target
