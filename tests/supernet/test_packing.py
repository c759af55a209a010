from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supernet.packing import pack_codes, unpack_codes


@settings(max_examples=150, deadline=None)
@given(
    bits=st.integers(2, 7),
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    seed=st.integers(0, 10_000),
)
def test_packing_is_exact_and_as_small_as_its_bits(bits, shape, seed):
    half = 1 << (bits - 1)
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(-half, half, shape, generator=generator, dtype=torch.int8)
    packed = pack_codes(codes, bits)
    assert packed.dtype is torch.uint8
    assert packed.shape == (-(-bits * codes.numel() // 8),)
    assert torch.equal(unpack_codes(packed, bits, tuple(shape)), codes)
    # One stream of bits, the least significant first.
    stream = [int(code) >> i & 1 for code in codes.reshape(-1) for i in range(bits)]
    stream += [0] * (-len(stream) % 8)
    assert [int(byte) >> i & 1 for byte in packed for i in range(8)] == stream


@pytest.mark.parametrize(("bits", "code"), [(2, 2), (4, -9), (7, 64)])
def test_a_code_that_does_not_fit_is_refused(bits, code):
    with pytest.raises(ValueError, match=f"do not fit {bits} bits"):
        pack_codes(torch.tensor([0, code], dtype=torch.int8), bits)
