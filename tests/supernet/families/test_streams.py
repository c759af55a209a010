from __future__ import annotations

import pytest
import torch

from supernet.elastic import ElasticBias, ElasticConvLayer, ElasticLayerNorm
from supernet.families import build_supernet
from supernet.importance import channel_importance, importance_order, reorder_channels
from tests.supernet.tiny_mobilenet import tiny_mobilenet_space
from tests.supernet.tiny_vit import tiny_vit_space


def built(norm="batch"):
    """A supernet with random scales; of `norm` "expandless", the CNN without expand layers."""
    torch.manual_seed(0)
    space = tiny_mobilenet_space() if norm == "expandless" else tiny_vit_space(norm)
    found = build_supernet(space)
    with torch.no_grad():
        for layer in found.modules():
            if isinstance(layer, ElasticLayerNorm | ElasticBias):
                for parameter in layer.parameters():
                    parameter.normal_()
            if isinstance(layer, ElasticConvLayer) and not layer.conv.weight.any():
                layer.conv.weight.normal_(std=0.2)
        for norm in found.norms():
            norm.weight.normal_()
            norm.bias.normal_(std=0.2)
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    return found.eval()


@pytest.fixture
def supernet():
    return built()


@pytest.mark.parametrize("norm", ["batch", "layer", "expandless"])
def test_any_order_of_the_groups_preserves_the_largest_network(norm):
    supernet = built(norm)
    images = torch.rand(4, 1, 24, 24)
    generator = torch.Generator().manual_seed(1)

    def order(group):
        return torch.randperm(len(group.writers[0].conv.weight), generator=generator)

    with torch.no_grad():
        before = supernet(images)
        stores = {site: p.clone() for site, p in supernet.named_parameters()}
        reorder_channels(supernet, order)
        torch.testing.assert_close(supernet(images), before, rtol=1e-3, atol=1e-3)
    changed = {n for n, p in supernet.named_parameters() if not torch.equal(p, stores[n])}
    moved = {
        site for site, layer in supernet.layers().items() if isinstance(layer, ElasticLayerNorm)
    }
    assert len(moved) == (8 if norm == "layer" else 0)
    names = {id(p): n for n, p in supernet.named_parameters()}
    assert {names[id(supernet.layers()[site].weight)] for site in moved} <= changed
    weights = [n for n in stores if n.startswith(("stem.", "head.", "feature.linear"))]
    weights = [n for n in weights if n.endswith((".conv.weight", "linear.weight"))]
    assert len(weights) == (2 if norm == "expandless" else 3)
    assert set(weights) <= changed


def test_groups_are_streams_and_hidden_channels_but_no_heads(supernet):
    groups = {group.name: group for group in supernet.channel_groups()}
    mlps = {f"stage{s}.block{b}.mlp" for s in (2, 3) for b in (0, 1)}
    inside = {"stage1.block0", "stage1.block1", "stage2.entry", "stage3.entry"}
    assert groups.keys() == {"stem", "stage1", "stage2", "stage3", "head"} | mlps | inside

    def sites(layers):
        return [layer.spec.site for layer in layers]

    # A block without expansion carries the stream through its depthwise convolution.
    blocks = [f"stem.block{b}" for b in (0, 1)]
    assert sites(groups["stem"].writers) == [
        "stem.conv", *(f"{b}.{layer}" for b in blocks for layer in ("depthwise", "project"))
    ]  # fmt: skip
    assert sites(groups["stem"].readers) == [
        *(f"{block}.project" for block in blocks), "stage1.block0.expand"
    ]  # fmt: skip
    assert sites(groups["stage3"].writers) == [
        "stage3.entry.project",
        "stage3.block0.attention.project",
        "stage3.block0.mlp.project",
        "stage3.block1.attention.project",
        "stage3.block1.mlp.project",
    ]
    assert sites(groups["stage3"].readers)[-1] == "head"
    written = {site for group in groups.values() for site in sites(group.writers)}
    assert not [site for site in written if site.endswith(("qkv", "core"))]


def test_a_layer_norm_scales_the_stream_that_its_block_reads():
    groups = {group.name: group for group in built("layer").channel_groups()}
    blocks = [f"stage3.block{b}" for b in (0, 1)]
    sites = [gate.spec.site for gate in groups["stage3"].gates]
    assert sites == [f"{b}.{part}.norm" for b in blocks for part in ("attention", "mlp")]
    assert not groups["stage1"].gates
    plain = {group.name: group for group in built().channel_groups()}
    for name, group in groups.items():
        for role in ("writers", "readers"):
            found, wanted = (getattr(one, role) for one in (group, plain[name]))
            assert [x.spec.site for x in found] == [x.spec.site for x in wanted]


def test_without_batch_norm_the_weights_that_write_a_channel_say_how_much_it_matters():
    supernet = built("layer")
    group = next(g for g in supernet.channel_groups() if g.name == "stage3.block0.mlp")
    with torch.no_grad():
        group.writers[0].conv.weight[3] = 0
        group.readers[0].conv.weight[:, 5] = 0
    assert set(importance_order(group)[-2:].tolist()) == {3, 5}


def test_a_block_without_expansion_that_begins_a_stage_carries_the_stream_before_it():
    def sites(layers):
        return [layer.spec.site for layer in layers]

    space = tiny_mobilenet_space(stem=(8,), first=(8, 16))
    groups = {group.name: group for group in build_supernet(space).channel_groups()}
    blocks = [f"stage1.block{b}" for b in (0, 1)]
    assert sites(groups["stem"].writers) == ["stem", f"{blocks[0]}.depthwise"]
    assert sites(groups["stem"].gates) == [f"{blocks[0]}.se"]
    assert sites(groups["stem"].readers) == [f"{blocks[0]}.project"]
    later = [f"{blocks[0]}.project", f"{blocks[1]}.depthwise", f"{blocks[1]}.project"]
    assert sites(groups["stage1"].writers) == later
    assert sites(groups["stage1"].gates) == [f"{blocks[1]}.se"]

    # With a shortcut over the first block it is one stream.
    groups = {group.name: group for group in built("expandless").channel_groups()}
    assert sites(groups["stem"].writers) == ["stem", f"{blocks[0]}.depthwise", *later]
    assert "stage1" not in groups


@pytest.mark.parametrize("name", ["stage2", "stage3"])
def test_a_channel_counts_as_much_as_the_gains_of_its_layer_norms_let_through(name):
    supernet = built("layer")
    (group,) = (g for g in supernet.channel_groups() if g.name == name)
    # The last reader, the next stage or the head, is behind none.
    *behind, last = group.readers
    assert [reader for reader, _ in group.normed] == behind
    assert tuple(norm for _, norm in group.normed) == group.gates
    before = channel_importance(group)
    with torch.no_grad():
        for reader, norm in group.normed:
            norm.weight[2] *= -4
            reader.conv.weight[:, 2] /= 4
    torch.testing.assert_close(channel_importance(group), before)
    with torch.no_grad():
        last.conv.weight[:, 3] = 0
        for _, norm in group.normed:
            norm.weight[3] = 0
    found = channel_importance(group)
    assert found[3] == 0
    assert importance_order(group)[-1] == 3
    with torch.no_grad():
        group.normed[0][1].weight[3] = 1
    assert channel_importance(group)[3] > 0
