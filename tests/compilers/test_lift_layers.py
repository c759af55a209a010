from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compilers.errors import UnsupportedOperatorError
from compilers.frontend import trace
from compilers.graph import OpKind
from compilers.reference import constants, evaluate

TOKENS, HEADS, WIDTH = 4, 2, 8


class Masked(nn.Module):
    """Self-attention of two heads with a constant mask."""

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.view(1, TOKENS, HEADS, WIDTH).transpose(1, 2)
        return F.scaled_dot_product_attention(x, x, x, attn_mask=self.mask)


def causal(*leading: int) -> torch.Tensor:
    return torch.ones((*leading, TOKENS, TOKENS), dtype=torch.bool).tril()


def one_head_differs() -> torch.Tensor:
    mask = causal(1, HEADS).clone()
    mask[0, 1, 0, TOKENS - 1] = True
    return mask


MASKS = {
    "causal": (causal(), True),
    "causal for every head": (causal(1, HEADS), True),
    "another in one head": (one_head_differs(), False),
    "of one row": (torch.tensor([[True, True, False, True]]), False),
    "numbers": (torch.arange(TOKENS, dtype=torch.float32)[None], False),
}


@pytest.mark.parametrize(("mask", "is_causal"), MASKS.values(), ids=MASKS)
def test_attention_masks_mean_what_they_mean_in_the_module(mask, is_causal):
    module = Masked(mask)
    x = torch.randn((1, TOKENS, HEADS * WIDTH), generator=torch.Generator().manual_seed(0))
    graph = trace(module, tuple(x.shape))
    (op,) = [op for op in graph.ops if op.kind is OpKind.ATTENTION]
    assert op.attributes["causal"] is is_causal
    assert len(op.inputs) == (3 if is_causal else 4)
    values = {**constants(graph), graph.input: x}
    for each in graph.ops:
        values[each.name] = evaluate(each, *(values[name] for name in each.inputs))
    torch.testing.assert_close(values[graph.output], module(x))


class Applied(nn.Module):
    """A function as a module."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


REFUSED = {
    "mean.default": lambda x: x.mean(),
    "mean to a number without axes": lambda x: x[0].mean((0, 1)),
    "reshape to a number without axes": lambda x: x.mean((1, 2)).squeeze(),
    "softmax in torch.float64": lambda x: x.softmax(-1, dtype=torch.float64),
    "softmax over axis 1": lambda x: x.softmax(1),
}


@pytest.mark.parametrize(("message", "function"), REFUSED.items(), ids=REFUSED)
def test_what_no_kernel_stores_is_refused_by_name(message, function):
    with pytest.raises(UnsupportedOperatorError, match=message):
        trace(Applied(function), (1, 4, 8))
