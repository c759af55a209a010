from __future__ import annotations

import numpy as np
import pytest
import torch
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


def test_a_shared_value_keeps_a_constant_addition_apart():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 8, 1, bias=False)
            self.offset = nn.Parameter(torch.ones(1, 8, 1, 1))

        def forward(self, x):
            y = self.conv(x)
            return (y + (y + self.offset)).mean((2, 3))

    with pytest.raises(UnsupportedOperatorError, match="constant"):
        trace(Net(), (1, 1, 4, 4))


def test_a_separate_bias_is_folded():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 8, 1, bias=False)
            self.offset = nn.Parameter(torch.arange(8.0).reshape(1, 8, 1, 1))

        def forward(self, x):
            return (self.conv(x) + self.offset).mean((2, 3))

    graph = trace(Net(), (1, 1, 4, 4))
    assert [op.kind for op in graph.ops] == [OpKind.CONV, OpKind.MEAN]
    np.testing.assert_array_equal(graph.ops[0].params["bias"], np.arange(8.0))


@pytest.mark.parametrize(
    ("module", "named"),
    [
        (nn.Sequential(nn.Conv2d(1, 8, 3), nn.GELU()), r"aten\.gelu.*'1'"),
        (nn.Sequential(nn.Conv2d(1, 8, 3, padding_mode="reflect", padding=1)), "pad"),
        (nn.Sequential(nn.Conv2d(1, 8, 3, dilation=2)), "dilated.*'0'"),
        (nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten()), "reshape.*'1'"),
    ],
)
def test_what_has_no_template_is_an_error_that_names_operator_and_module(module, named):
    with pytest.raises(UnsupportedOperatorError, match=named):
        trace(module, (1, 1, 8, 8))


def test_only_batch_one():
    with pytest.raises(UnsupportedOperatorError, match="batch 2"):
        trace(nn.Conv2d(1, 8, 1), (2, 1, 4, 4))
