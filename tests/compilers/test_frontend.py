from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compilers.errors import UnsupportedOperatorError
from compilers.frontend import trace
from compilers.graph import OpKind
from compilers.reference import evaluate


@pytest.mark.parametrize("name", ["fp32", "w8a8", "mixed"])
def test_the_graph_computes_what_the_subnet_computes(subnets, images, name):
    subnet = subnets[name]
    graph = trace(subnet, (1, *images.shape[1:]))
    x = torch.from_numpy(images[:1])
    assert not graph.constants
    values = {graph.input: x}
    for op in graph.ops:
        values[op.name] = evaluate(op, *(values[name] for name in op.inputs))
        assert values[op.name].shape == op.shape
    torch.testing.assert_close(values[graph.output], subnet(x), rtol=1e-5, atol=1e-5)


def test_operators_carry_the_sites_of_their_layers(subnets, images):
    graph = trace(subnets["w8a8"], (1, *images.shape[1:]))
    sites = {op.site for op in graph.ops if op.kind is OpKind.QCONV}
    assert sites == {
        "a.expand", "a.depthwise", "a.project", "b.expand", "b.depthwise", "b.project", "head",
    }  # fmt: skip


class Net(nn.Module):
    """`forward` of a convolution and a normalisation."""

    def __init__(self, forward) -> None:
        super().__init__()
        self.conv, self.run = nn.Conv2d(1, 8, 1), forward
        self.norm, self.embedding = nn.BatchNorm2d(8), nn.Embedding(8, 4)
        self.pool = nn.AvgPool2d(3, 1, 1)
        self.table = nn.Parameter(torch.arange(12.0))

    def forward(self, x):
        return self.run(self, x)


def test_what_depends_on_no_input_is_a_constant():
    def forward(s, x):
        angles = torch.outer(torch.arange(4), s.table[:4]).cos().repeat(2, 1)
        return s.conv(x) * angles[None, :, :, None].sum(2, keepdim=True)

    graph = trace(Net(forward), (1, 1, 4, 4))
    assert [op.kind for op in graph.ops] == [OpKind.CONV, OpKind.MUL]
    (constant,) = graph.constants.values()
    expected = np.cos(np.outer(np.arange(4), np.arange(4))).sum(1)
    np.testing.assert_allclose(constant[0, :, 0, 0], np.tile(expected, 2), rtol=1e-6)


def test_operators_whose_result_nobody_reads_are_left_out():
    def forward(s, x):
        first, _, third, _ = s.conv(x).split(2, 1)
        return first + F.dropout(third, training=False).contiguous().to(torch.float32)

    graph = trace(Net(forward), (1, 1, 4, 4))
    assert [op.kind for op in graph.ops] == [OpKind.CONV, OpKind.SLICE, OpKind.SLICE, OpKind.ADD]
    assert [op.attributes["start"] for op in graph.ops[1:3]] == [0, 4]


def test_a_norm_that_is_written_out_is_one_operator_only_where_it_is_one():
    def norm(x, axis):
        return x * torch.rsqrt(x.square().mean(axis, keepdim=True) + 1e-3)

    graph = trace(Net(lambda s, x: norm(s.conv(x).pow(2), -1) * s.table[:4]), (1, 1, 4, 4))
    assert [op.kind for op in graph.ops] == [OpKind.CONV, OpKind.MUL, OpKind.RMS_NORM]
    assert graph.ops[-1].attributes == {"epsilon": pytest.approx(1e-3)}
    np.testing.assert_array_equal(graph.ops[-1].params["weight"], np.arange(4))
    graph = trace(Net(lambda s, x: norm(s.conv(x), 1)), (1, 1, 4, 4))
    assert OpKind.RMS_NORM not in [op.kind for op in graph.ops]


def test_masks_become_biases_or_causal_attention():
    def attend(mask):
        def forward(s, x):
            z = s.conv(x).flatten(2).mT.view(1, 16, 1, 8).mT.mT.transpose(1, 2)
            return F.scaled_dot_product_attention(z, z, z, attn_mask=mask)

        return trace(Net(forward), (1, 1, 4, 4))

    causal = attend(torch.ones(16, 16).tril().bool()).ops[-1]
    assert causal.attributes["causal"]
    assert len(causal.inputs) == 3
    banded = attend(torch.ones(16, 16).triu(-2).bool())
    assert not banded.ops[-1].attributes["causal"]
    (bias,) = banded.constants.values()
    assert bias.shape == (1, 16, 16)
    np.testing.assert_array_equal(bias[0] == 0, np.triu(np.ones((16, 16)), -2) == 1)
    assert np.isneginf(bias.min())


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda s, x: F.gelu(s.conv(x), approximate="tanh"), "approximate='tanh'"),
        (lambda s, x: s.conv(x) / s.conv(x), "division by an activation"),
        (lambda s, x: torch.sub(s.conv(x), x), "subtraction of two activations"),
        (lambda s, x: s.conv(x)[..., ::2], "slice with step 2"),
        (lambda s, x: s.conv(x).double(), "float64"),
        (lambda s, x: s.pool(s.conv(x)), "counts its padding"),
        (lambda s, x: F.max_pool2d(s.conv(x), 3, 2, ceil_mode=True), "rounds its size up"),
        (lambda s, x: F.softmax(s.conv(x), 1), "softmax over axis 1"),
        (lambda s, x: F.adaptive_avg_pool2d(s.conv(x), 2), "adaptive pooling"),
        (lambda s, x: F.layer_norm(s.conv(x), (4, 4)), "normalisation over 2 axes"),
        (lambda s, x: (s.conv(x), x), "2 results"),
        (lambda s, x: s.table, "1 results"),
        (lambda s, x: F.conv2d(x, x), "weight is not a constant"),
    ],
)
def test_uses_without_a_template_are_errors_that_say_which(forward, message):
    with pytest.raises(UnsupportedOperatorError, match=message):
        trace(Net(forward), (1, 1, 4, 4))


def test_tokens_are_int64():
    graph = trace(Net(lambda s, x: s.embedding(x)), (1, 5), "int64")
    assert graph.input_dtype == "int64"
    with pytest.raises(UnsupportedOperatorError, match="int32"):
        trace(Net(lambda s, x: s.embedding(x)), (1, 5), "int32")


@pytest.mark.parametrize(
    ("module", "named"),
    [
        (nn.Sequential(nn.Conv2d(1, 8, 3), nn.Mish()), r"aten\.mish.*'1'"),
        (nn.Sequential(nn.Conv2d(1, 8, 3, padding_mode="reflect", padding=1)), "pad"),
        (nn.Sequential(nn.Conv2d(1, 8, 3, dilation=2)), "dilated.*'0'"),
        (nn.Sequential(nn.Conv2d(1, 8, (3, 1), (2, 1))), "uneven.*'0'"),
    ],
)
def test_what_has_no_template_is_an_error_that_names_operator_and_module(module, named):
    with pytest.raises(UnsupportedOperatorError, match=named):
        trace(module, (1, 1, 8, 8))


def test_only_batch_one():
    with pytest.raises(UnsupportedOperatorError, match="batch 2"):
        trace(nn.Conv2d(1, 8, 1), (2, 1, 4, 4))
