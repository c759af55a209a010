from __future__ import annotations

import pytest
import torch

from supernet.elastic.leading import leading


@pytest.mark.parametrize("sizes", [(2,), (2, 3), (4, 3), (4, 5, 2)])
def test_the_first_entries_are_a_view_with_the_gradients_of_a_slice(sizes):
    store = torch.randn(4, 5, 6, requires_grad=True)
    part = leading(store, *sizes)
    wanted = store[tuple(slice(size) for size in sizes)]
    assert torch.equal(part, wanted)
    assert part.untyped_storage().data_ptr() == store.untyped_storage().data_ptr()
    slope = torch.randn(part.shape)
    found, expected = (torch.autograd.grad(one, store, slope)[0] for one in (part, wanted))
    assert torch.equal(found, expected)


def test_everything_is_the_store_itself():
    store = torch.randn(4, 5, requires_grad=True)
    assert leading(store, 4) is leading(store, 4, 5) is store
