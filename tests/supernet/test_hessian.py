from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from spaces.layer_spec import Operator
from supernet.families import build_supernet
from supernet.hessian import layer_eigenvalues, mean_eigenvalues
from tests.supernet.tiny_vit import tiny_vit_space


@pytest.fixture
def problem():
    torch.manual_seed(0)
    first = torch.randn(6, 5).mul_(0.7).requires_grad_()
    second = torch.randn(3, 6).mul_(0.7).requires_grad_()
    images, labels = torch.randn(40, 5), torch.randint(0, 3, (40,))

    def loss(a, b):
        return F.cross_entropy(torch.tanh(images @ a.T) @ b.T, labels)

    return loss, first, second


def exact(loss, first, second):
    blocks = torch.autograd.functional.hessian(loss, (first, second))
    return [
        float(blocks[i][i].reshape(t.numel(), t.numel()).trace()) / t.numel()
        for i, t in enumerate((first, second))
    ]


def test_joint_probes_estimate_the_trace_of_each_layer(problem):
    loss, first, second = problem
    generator = torch.Generator().manual_seed(0)
    names = {"first": first, "second": second}
    found = mean_eigenvalues(loss(first, second), names, 2000, generator)
    assert list(found.values()) == pytest.approx(exact(loss, first, second), rel=0.05)
    assert first.grad is None


def test_a_sum_of_few_probes_is_never_negative():
    weight = torch.zeros(2, requires_grad=True)
    loss = -(weight**2).sum()
    assert mean_eigenvalues(loss, {"w": weight}, 3, torch.Generator()) == {"w": 0.0}


def test_layers_of_a_supernet_are_measured_in_float_at_the_largest_config(small_space, digits):
    torch.manual_seed(0)
    supernet = build_supernet(small_space)
    images, labels = digits.train.images[:32], digits.train.labels[:32]
    supernet.activate(small_space.min_config())
    found = layer_eigenvalues(supernet, images, labels, probes=4, seed=1)
    assert set(found) == {s.site for s in small_space.layer_specs(small_space.max_config())} - {
        "pool"
    }
    assert all(value >= 0 for value in found.values())
    assert max(found.values()) > 0
    assert supernet.active == small_space.max_config()
    assert all(p.grad is None for p in supernet.parameters())
    again = layer_eigenvalues(supernet, images, labels, probes=4, seed=1)
    assert again == found


@pytest.mark.parametrize("name", ["mobilenet", "vit"])
def test_every_operator_bends_twice(tiny_space, digits, name):
    """Squeeze-and-excite and attention as well."""
    space = tiny_space if name == "mobilenet" else tiny_vit_space()
    torch.manual_seed(0)
    supernet = build_supernet(space)
    images, labels = digits.train.images[:16], digits.train.labels[:16]
    found = layer_eigenvalues(supernet, images, labels, probes=1, seed=0)
    specs = space.layer_specs(space.max_config())
    assert set(found) == {s.site for s in specs if s.operator is not Operator.GLOBAL_POOL}
