from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compilers.errors import UnsupportedOperatorError
from compilers.frontend import trace
from compilers.graph import OpKind
from compilers.storage import store


class Net(nn.Module):
    """`forward` of a few layers."""

    def __init__(self, forward) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 48)
        self.far = nn.Linear(128, 4)
        self.run = forward

    def forward(self, x):
        return self.run(self, x)


def tokens(s, x):
    return s.conv(x).flatten(2).transpose(1, 2)


def stored(forward, shape=(1, 3, 4, 4)):
    return store(trace(Net(forward), shape))


def kinds(graph):
    return [str(op.kind) for op in graph.ops]


def test_tokens_of_a_map_are_its_stored_tensor():
    graph = stored(lambda s, x: s.linear(tokens(s, x)))
    assert kinds(graph) == ["conv", "linear"]
    assert graph.ops[1].inputs == (graph.ops[0].name,)
    assert graph.ops[1].shape == (16, 48)


def test_queries_keys_and_values_are_columns_of_one_tensor():
    def forward(s, x):
        q, k, v = s.linear(tokens(s, x)).reshape(1, 16, 3, 2, 8).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    graph = stored(forward)
    assert kinds(graph) == ["conv", "linear", "attention"]
    given = graph.ops[2].attributes
    assert set(graph.ops[2].inputs) == {graph.ops[1].name}
    assert [given[f"{role}_offset"] for role in "qkv"] == [0, 16, 32]
    assert {given[f"{role}_stride"] for role in "qkv"} == {48}
    assert graph.output == graph.ops[2].name


def test_heads_that_do_not_lie_side_by_side_are_copied():
    def forward(s, x):
        q, k, v = s.linear(tokens(s, x)).reshape(1, 16, 2, 3, 8).permute(3, 0, 2, 1, 4)
        return F.scaled_dot_product_attention(q, k, v)

    graph = stored(forward)
    assert kinds(graph) == ["conv", "linear", "copy", "copy", "copy", "attention", "copy"]
    # The result is asked for by heads: [1, 2, 16, 8].
    assert graph.ops[-1].shape == (32, 8)


def test_a_flattened_map_is_copied_into_the_order_of_its_channels():
    graph = stored(lambda s, x: s.far(s.conv(x).flatten(1)))
    assert kinds(graph) == ["conv", "copy", "linear"]
    copy = graph.ops[1]
    assert copy.shape == (1, 128)
    assert copy.attributes == {"sizes": (8, 16), "strides": (1, 8), "offset": 0}


def test_operators_on_elements_keep_any_order():
    graph = stored(lambda s, x: s.linear(F.gelu(tokens(s, x)) + torch.ones(8)))
    assert kinds(graph) == ["conv", "gelu", "add", "linear"]
    assert graph.constants[graph.ops[2].inputs[1]].shape == (1, 8)


def test_operands_of_different_orders_meet_in_that_of_the_first():
    def forward(s, x):
        y = s.conv(x)
        wide = s.linear(y.flatten(2).transpose(1, 2))
        return y.flatten(2) + wide[..., 8:24].mT[:, 8:]

    graph = stored(forward)
    assert kinds(graph) == ["conv", "linear", "copy", "add", "copy"]
    assert graph.ops[2].shape == graph.ops[3].shape == (16, 8)
    assert graph.ops[2].attributes == {"sizes": (16, 8), "strides": (48, 1), "offset": 16}


def test_windows_that_do_not_overlap_become_rows():
    net = nn.Sequential(nn.Conv2d(3, 8, 2, 2), nn.Conv2d(8, 16, 2, 2))
    graph = store(trace(net, (1, 3, 8, 8)))
    assert kinds(graph)[:4] == ["copy", "linear", "copy", "linear"]
    assert [op.shape for op in graph.ops[:4]] == [(16, 12), (16, 8), (4, 32), (4, 16)]


def rotated(s, x):
    z = s.linear(tokens(s, x))[..., :16].view(1, 16, 2, 8).transpose(1, 2)
    turned = torch.cat((-z[..., 4:], z[..., :4]), -1)
    return z * torch.ones(16, 8) + turned * torch.ones(16, 8)


def test_a_rotary_embedding_is_part_of_attention_only():
    def attend(s, x):
        q, v = rotated(s, x), s.linear(tokens(s, x))[..., 32:].view(1, 16, 2, 8).transpose(1, 2)
        return F.scaled_dot_product_attention(q, q, v)

    graph = stored(attend)
    assert OpKind.ROPE not in [op.kind for op in graph.ops]
    (attention,) = [op for op in graph.ops if op.kind is OpKind.ATTENTION]
    assert attention.params["cos"].shape == (16, 8)

    def beside(s, x):
        q, v = rotated(s, x), s.linear(tokens(s, x))[..., 32:].view(1, 16, 2, 8).transpose(1, 2)
        return F.scaled_dot_product_attention(q, v, v)

    with pytest.raises(UnsupportedOperatorError, match="rotary"):
        stored(beside)
    with pytest.raises(UnsupportedOperatorError, match="rotary embedding, which only attention"):
        stored(lambda s, x: F.relu(rotated(s, x)))


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda s, x: torch.cat([s.conv(x), s.conv(x)], 2).transpose(2, 3), None),
        (lambda s, x: torch.cat([s.conv(x), s.conv(x)], 3), "concatenation along axis 3"),
        (lambda s, x: s.conv(x).mean((2, 3), keepdim=True) + torch.ones(1, 8, 4, 4), "broadcast"),
        (lambda s, x: x, "returns its input|must return one tensor"),
    ],
)
def test_what_no_kernel_can_read_is_an_error(forward, message):
    if message is None:
        assert kinds(stored(forward)).count("concat") == 1
        return
    with pytest.raises(UnsupportedOperatorError, match=message):
        stored(forward)
