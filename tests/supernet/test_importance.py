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


STREAMS = {"stem", "stage1", "stage2"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("widths", "shuffled", "margin"),
    [
        ("inside", {f"stage{s}.block{b}" for s in (1, 2) for b in (0, 1)} | {"head"}, 0.15),
        ("narrower streams", STREAMS, 0.12),
        ("narrowest streams", STREAMS, 0.08),
    ],
)
def test_narrow_subnet_without_training_is_better_in_importance_order(
    warm, tiny_space, digits, widths, shuffled, margin
):
    """Weights as the warm-up left them; only the groups that the case narrows are shuffled.

    All groups at their narrowest together leave nothing of the network in any order.
    """
    largest = tiny_space.max_config()
    assert evaluate(warm.supernet, largest, digits).accuracy > 0.9
    smallest = tiny_space.min_config()
    if widths == "inside":
        names = [n for n in tiny_space.names if n.endswith("expansion")] + ["head.width"]
    else:
        names = ["stem.width", "stage1.width", "stage2.width"]
    narrow = {name: smallest[name] for name in names}
    if widths == "narrower streams":
        narrow["stage1.width"] = 16
    config = tiny_space.config({**largest, **narrow})

    def score(order):
        supernet = copy.deepcopy(warm.supernet)
        reorder_channels(supernet, lambda g: (order if g.name in shuffled else importance_order)(g))
        return evaluate(supernet, config, digits)

    assert shuffled < {group.name for group in warm.supernet.channel_groups()}
    chance = [score(random_order(torch.Generator().manual_seed(seed))) for seed in range(8)]
    ordered = score(importance_order)
    assert ordered.accuracy > mean(c.accuracy for c in chance) + margin
    assert ordered.accuracy > max(c.accuracy for c in chance)
    assert ordered.loss < mean(c.loss for c in chance) - 0.15
