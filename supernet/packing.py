"""Integer weights of 2 to 7 bits as bytes, and back: the layout of `spaces.cost.tensor_layout`."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

_CODES = 8
"""Codes that fill whole bytes at every width, and whose bits fit an int64."""


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Pack integers at `bits` bits each, little-endian.

    Args:
        codes: int8 of any shape, from -2**(bits - 1) to 2**(bits - 1) - 1.
        bits: 2 to 7.

    Returns:
        uint8 [ceil(bits * codes.numel() / 8)]; unused bits of the last byte are zero.

    Raises:
        ValueError: A code does not fit.
    """
    half = 1 << (bits - 1)
    if codes.numel() and not -half <= int(codes.min()) <= int(codes.max()) < half:
        raise ValueError(
            f"integers from {int(codes.min())} to {int(codes.max())} do not fit {bits} bits"
        )
    flat = torch.nn.functional.pad(codes.reshape(-1), (0, -codes.numel() % _CODES))
    fields = flat.view(-1, _CODES).to(torch.int64) & (2 * half - 1)
    words = (fields << (torch.arange(_CODES, device=codes.device) * bits)).sum(1)  # [n / 8]
    shifts = 8 * torch.arange(bits, device=codes.device)
    packed = (words[:, None] >> shifts & 0xFF).to(torch.uint8)  # [n / 8, bits]
    return packed.reshape(-1)[: -(-codes.numel() * bits // 8)].clone()


def unpack_codes(packed: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """The integers that `pack_codes` packed.

    Args:
        packed: uint8 [ceil(bits * prod(shape) / 8)].
        bits: 2 to 7.
        shape: Of the result.

    Returns:
        int8 of `shape`.
    """
    flat = torch.nn.functional.pad(packed, (0, -len(packed) % bits)).view(-1, bits)
    shifts = 8 * torch.arange(bits, device=packed.device)
    words = (flat.to(torch.int64) << shifts).sum(1)  # [n / 8]
    fields = words[:, None] >> (torch.arange(_CODES, device=packed.device) * bits)
    half = 1 << (bits - 1)
    codes = ((fields & (2 * half - 1)) ^ half) - half
    return codes.reshape(-1)[: prod(shape)].to(torch.int8).view(shape)
