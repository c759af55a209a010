from __future__ import annotations

import numpy as np
import pytest
import torch

from compilers.check import LayerCheck, compare, tolerance
from compilers.errors import MismatchError
from compilers.frontend import trace
from compilers.graph import OpKind
from compilers.reference import evaluate


def stored_values(graph, x):
    """Every quantised tensor of the graph as kernels would store it."""
    values = {graph.input: torch.from_numpy(x)}
    for op in graph.ops:
        values[op.name] = evaluate(op, *(values[name] for name in op.inputs))
    return {
        op.name: values[op.name].reshape(op.shape[1], -1).T.numpy().copy()
        for op in graph.ops
        if op.kind is OpKind.QUANTIZE
    }


@pytest.fixture
def graph(subnets, images):
    return trace(subnets["w8a8"], (1, *images.shape[1:]))


def test_the_module_agrees_with_itself(graph, images):
    check = LayerCheck(graph)
    check(images[:1], stored_values(graph, images[:1]))
    assert check.steps == 0
    assert check.values > 1000


def test_one_wrong_step_is_allowed_two_are_not(graph, images):
    stored = stored_values(graph, images[:1])
    name = list(stored)[1]
    off = stored[name]
    off[3, 2] = off[3, 2] + 1 if off[3, 2] < 128 else off[3, 2] - 1
    LayerCheck(graph)(images[:1], stored)
    off[3, 2] = off[3, 2] + 1 if off[3, 2] < 128 else off[3, 2] - 1
    with pytest.raises(MismatchError, match="up to 2 steps"):
        LayerCheck(graph)(images[:1], stored)


def test_many_wrong_steps_are_a_mismatch(graph, images):
    stored = stored_values(graph, images[:1])
    off = stored[next(iter(stored))]
    off[:5, 0] = np.where(off[:5, 0] < 128, off[:5, 0] + 1, off[:5, 0] - 1)
    with pytest.raises(MismatchError, match=r"5 of .* differ"):
        LayerCheck(graph)(images[:1], stored)


def test_logits_outside_the_tolerance_are_a_mismatch(subnets):
    allowed = tolerance(subnets["fp32"].specs)
    expected = np.array([[1.0, -2.0]], np.float32)
    assert compare(expected, expected, allowed) == 0
    with pytest.raises(MismatchError):
        compare(expected * (1 + 3 * allowed), expected, allowed)
    with pytest.raises(MismatchError):
        compare(np.array([[np.nan, -2.0]], np.float32), expected, 1.0)
    with pytest.raises(MismatchError, match="shape"):
        compare(expected[:, :1], expected, 1.0)
    assert tolerance(subnets["mixed"].specs) > allowed
