"""The part of a store that is active: the first entries along its axes."""

from __future__ import annotations

from torch import Tensor


def leading(store: Tensor, *sizes: int) -> Tensor:
    """The first `sizes` entries along the first axes of `store`, a view; `store` itself where that
    is all of it.

    Every slice is a node of autograd's graph, whose gradient is as large as the store: an axis of
    which everything is wanted is not sliced.
    """
    for axis, size in enumerate(sizes):
        if size < store.shape[axis]:
            store = store.narrow(axis, 0, size)
    return store
