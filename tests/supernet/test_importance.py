from __future__ import annotations

import copy
from statistics import mean

import pytest
import torch

from supernet.data import resize
from supernet.evaluate import evaluate
from supernet.importance import channel_importance, importance_order, reorder_channels


def random_order(generator):
    def order(group):
        return torch.randperm(len(channel_importance(group)), generator=generator)

    return order


@pytest.mark.parametrize("kind", ["importance", "random"])
def test_reordering_preserves_the_largest_network(calibrated, tiny_space, digits, kind):
    supernet = copy.deepcopy(calibrated).eval()
    with torch.no_grad():
        for norm in supernet.norms():
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    supernet.activate(tiny_space.max_config())
    images = resize(digits.selection.images[:16], supernet.resolution)
    with torch.no_grad():
        before = supernet(images)
        stem = supernet.layers()["stem"].conv.weight.clone()
        order = importance_order if kind == "importance" else random_order(torch.Generator())
        reorder_channels(supernet, order)
        torch.testing.assert_close(supernet(images), before, rtol=1e-4, atol=1e-4)
    assert not torch.equal(supernet.layers()["stem"].conv.weight, stem)


def test_groups_cover_every_elastic_width(calibrated, tiny_space):
    groups = {g.name: g for g in calibrated.channel_groups()}
    assert set(groups) == {
        "stem",
        "stage1",
        "stage1.block0",
        "stage1.block1",
        "stage2",
        "stage2.block0",
        "stage2.block1",
        "head",
    }
    # The residual stream of a stage is written by all its projections and read by the next stage.
    assert [w.spec.site for w in groups["stage1"].writers] == [
        "stage1.block0.project",
        "stage1.block1.project",
    ]
    assert [r.spec.site for r in groups["stage1"].readers] == [
        "stage1.block1.expand",
        "stage2.block0.expand",
    ]


@pytest.mark.slow
def test_after_reordering_importance_falls(warm):
    supernet = copy.deepcopy(warm.supernet)
    reorder_channels(supernet)
    for group in supernet.channel_groups():
        scores = channel_importance(group)
        assert bool((scores[:-1] >= scores[1:]).all()), group.name


def test_a_dead_channel_goes_last(calibrated):
    supernet = copy.deepcopy(calibrated)
    group = next(g for g in supernet.channel_groups() if g.name == "stage1.block0")
    with torch.no_grad():
        for writer in group.writers:
            writer.norm.weight[3] = 0
        group.readers[0].conv.weight[:, 5] = 0
    assert set(importance_order(group)[-2:].tolist()) == {3, 5}


@pytest.mark.slow
def test_half_width_subnet_without_training_is_better_in_importance_order(warm, tiny_space, digits):
    """Half the channels inside every block and half the head, weights as the warm-up left them."""
    halves = {name: 2 for name in tiny_space.names if name.endswith("expansion")}
    largest = tiny_space.max_config()
    assert all(largest[name] == 4 for name in halves)
    assert largest["head.width"] == 48
    config = tiny_space.config({**largest, **halves, "head.width": 24})

    def score(order):
        supernet = copy.deepcopy(warm.supernet)
        reorder_channels(supernet, order)
        return evaluate(supernet, config, digits)

    generator = torch.Generator().manual_seed(0)
    chance = [score(random_order(generator)) for _ in range(5)]
    ordered = score(importance_order)
    assert ordered.accuracy > mean(c.accuracy for c in chance) + 0.05
    assert ordered.loss < min(c.loss for c in chance)
