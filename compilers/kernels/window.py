"""Windows at the border of an image: clipped for floats, padded copies for integers.

A pixel outside the image stands for the real value 0, which is the zero point in uint8. With the
border in memory, no tap of an integer window is special, and the sum of the weights times the
zero point is the same for every pixel, so that it can be folded into the bias.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from compilers.intrinsics import IntegerDot
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
from compilers.kernels.tiling import thread_chunks

if TYPE_CHECKING:
    from compilers.targets import Isa

_COPY_LANES = 32
_COPY_CYCLES = 4.0
"""Per as many elements as a vector has lanes of 32 bits."""


def window_rows(
    em: Emitter, oh: Index, height: int, kernel: int, stride: int, padding: int
) -> tuple[Index, Index]:
    """(first, count) of the window's rows that lie inside the image at output row `oh`."""
    top = padding - oh * stride
    first = em.let(maximum(top, 0))
    return first, em.let(minimum(height + top, kernel) - first)


def fill_border(
    em: Emitter,
    target: Buffer,
    size: tuple[int, int],
    channels: int,
    border: int,
    value: Callable[[int], Expr],
    width: int = _COPY_LANES,
) -> None:
    """Store the zero point around an image of `size` inside `target` [(H+2b) * (W+2b) * C].

    Args:
        em: where to emit.
        target: the bordered image, one-dimensional.
        size: height and width without the border, pixels.
        channels: elements of a pixel.
        border: pixels on each side.
        value: lanes -> vector of the zero point in the target's element type.
        width: most elements of one store.
    """
    height, columns = size
    full = columns + 2 * border

    def fill(first_pixel: Index, pixels: int) -> None:
        def piece(at: Index, lanes: int) -> None:
            em.store(target, [first_pixel * channels + at], value(lanes), lanes)

        em.pieces(pixels * channels, width, piece)

    # Right border of a row and left border of the next one touch in memory.
    fill(0, border * full + border)
    em.loop(height - 1, lambda row: fill((border + row) * full + border + columns, 2 * border))
    fill((border + height - 1) * full + border + columns, border * full + border)


def copy_inside(
    em: Emitter,
    target: Buffer,
    x: Buffer,
    size: tuple[int, int],
    first_channel: Index,
    channels: int,
    border: int,
    rows: tuple[Index, Index],
    dot: IntegerDot,
) -> None:
    """Copy `channels` channels of some rows (first, count) of the image `x` [H * W, C].

    They go inside the border of `target`, as in `fill_border`, in the element type of `dot`.
    """
    _, width = size

    def row(h: Index) -> None:
        first_pixel = (h + border) * (width + 2 * border) + border
        if channels == x.shape[1]:
            # A row is one stretch of memory on both sides.
            def stretch(at: Index, lanes: int) -> None:
                values = dot.convert(load(x, [h * width, at], lanes), lanes)
                em.store(target, [first_pixel * channels + at], values, lanes)

            em.pieces(width * channels, _COPY_LANES, stretch)
            return

        def column(w: Index) -> None:
            pixel = first_pixel + w

            def piece(channel: Index, lanes: int) -> None:
                values = load(x, [h * width + w, first_channel + channel], lanes)
                at = pixel * channels + channel
                em.store(target, [at], dot.convert(values, lanes), lanes)

            em.pieces(channels, _COPY_LANES, piece)

        em.loop(width, column)

    first, count = rows
    em.loop(count, row, start=first)


def padded_copy(
    em: Emitter,
    x: Buffer,
    shape: tuple[int, int, int],
    border: int,
    zero: Callable[[int], Expr],
    dot: IntegerDot,
    isa: Isa,
) -> Buffer:
    """The image `x` [H * W, C] with a border, [(H + 2b) * (W + 2b) * C], for the dot product.

    Its rows are copied by several threads where that pays; not to be nested in parallel work.

    Args:
        em: where to emit.
        x: uint8.
        shape: height, width and channels without the border.
        border: pixels on each side.
        zero: lanes -> int32 vector of the zero point.
        dot: decides the element type.
        isa: where it runs.
    """
    height, width, channels = shape
    pixels = (height + 2 * border) * (width + 2 * border)
    target = em.scratch((pixels * channels,), dot.activation_dtype)
    if border:

        def outside(lanes: int) -> Expr:
            return dot.convert(cast(zero(lanes), "uint8", lanes), lanes)

        fill_border(em, target, (height, width), channels, border, outside)

    def copy(lines: tuple[Index, Index]) -> None:
        copy_inside(em, target, x, (height, width), 0, channels, border, lines, dot)

    _divide_rows(em, shape, isa, copy)
    return target


def padded_planes(
    em: Emitter,
    x: Buffer,
    shape: tuple[int, int, int],
    border: int,
    value: Callable[[int], Expr],
    isa: Isa,
) -> Buffer:
    """The planes of `x` [1, C, H, W], each with a border: [C * (H + 2b) * (W + 2b)], float32.

    Their rows are copied by several threads where that pays; not to be nested in parallel work.
    """
    height, width, channels = shape
    full = width + 2 * border
    plane = (height + 2 * border) * full
    target = em.scratch((channels * plane,))

    def fill(first: Index, count: int) -> None:
        def piece(at: Index, lanes: int) -> None:
            em.store(target, [first + at], value(lanes), lanes)

        em.pieces(count, _COPY_LANES, piece)

    def edges(c: Index) -> None:
        fill(c * plane, border * full)
        fill(c * plane + (height + border) * full, border * full)

    def row(c: Index, h: Index) -> None:
        first = c * plane + (h + border) * full
        fill(first, border)

        def piece(at: Index, lanes: int) -> None:
            em.store(target, [first + border + at], load(x, [0, c, h, at], lanes), lanes)

        em.pieces(width, _COPY_LANES, piece)
        fill(first + border + width, border)

    def copy(lines: tuple[Index, Index]) -> None:
        first, count = lines
        em.loop(channels, lambda c: em.loop(count, partial(row, c), start=first))

    em.loop(channels, edges)
    _divide_rows(em, shape, isa, copy)
    return target


def _divide_rows(
    em: Emitter,
    shape: tuple[int, int, int],
    isa: Isa,
    copy: Callable[[tuple[Index, Index]], None],
) -> None:
    """Run `copy((first, count))` for all rows of an image of `shape`, divided among threads."""
    height, width, channels = shape
    cycles = _COPY_CYCLES * height * width * channels / isa.vector_lanes
    chunks = thread_chunks(isa, cycles, height)
    em.parallel(chunks, lambda chunk: copy(em.share(height, chunk, chunks)))
