from __future__ import annotations

import pytest
import torch

from search.progress import silent
from search.supernet_eval import Variant, scores, variants
from spaces import FP32, DimensionKind, SearchSpace, cost
from spaces.inline import parse_inline_space
from supernet import DataConfig, build_supernet, evaluate, load_data
from supernet.recalibration import recalibrate


@pytest.fixture(scope="module")
def space(small_space) -> SearchSpace:
    return parse_inline_space(small_space).space()


def bits(space, config):
    """The bits of the layers that a config has."""
    active = space.active(config.indices[None])[0]
    return {
        config[d.name]
        for d, counts in zip(space.dimensions, active, strict=True)
        if counts and d.kind is DimensionKind.W_BITS
    }


def test_ends_and_random_architectures_at_every_uniform_bit_width(space):
    found = variants(space, 3, 0)
    assert [v.subnet for v in found] == [
        name
        for name in ("smallest", "largest", "random 1", "random 2", "random 3")
        for _ in range(2)
    ]
    assert [v.bits for v in found] == [8, 32] * 5
    assert all(bits(space, v.config) == {v.bits} for v in found)
    assert len({v.config.key for v in found}) == 10
    small, large = found[0].config, found[3].config
    ends = [cost(space.layer_specs(end)) for end in (space.min_config(), space.max_config())]
    assert cost(space.layer_specs(small)).macs == ends[0].macs
    assert cost(space.layer_specs(large)).macs == ends[1].macs
    assert all(spec.precision == FP32 for spec in space.layer_specs(large))


def test_random_architectures_are_decided_by_the_seed(space):
    def keys(seed):
        return [v.config.key for v in variants(space, 4, seed)][4:]

    assert keys(1) == keys(1)
    assert keys(1) != keys(2)


def test_every_form_of_a_space_that_has_them(small_space):
    """Float32 has no form; where a width is missing among the inputs', the nearest is taken."""
    settings = {name: v for name, v in small_space["settings"].items() if name != "schemes"}
    forms = {
        "w_bits": [2, 4, 32],
        "a_bits": [4, 8],
        "granularity": ["per_tensor", "per_channel"],
        "weight_symmetry": ["symmetric", "asymmetric"],
    }
    space = parse_inline_space(small_space | {"settings": settings | forms}).space()
    found = variants(space, 1, 0)
    assert [v.bits for v in found] == [2] * 4 + [4] * 4 + [32] + [2] * 4 + [4] * 4 + [32] + (
        [2] * 4 + [4] * 4 + [32]
    )
    assert len({tuple(v.form.items()) for v in found[:4]}) == 4
    assert set(found[0].form) == {"weight.granularity", "weight.symmetry"}
    assert found[8].form == {}
    for variant in found:
        for spec in space.layer_specs(variant.config):
            if spec.precision.activation is not None and spec.precision.weight is not None:
                assert spec.precision.weight.bits == variant.bits
                assert spec.precision.activation.bits == 4
                assert str(spec.precision.weight.symmetry) == variant.form["weight.symmetry"]


def test_layers_without_that_width_take_the_nearest(space):
    pinned = space.restrict(choices={"classifier.w_bits": [8]})
    found = variants(pinned, 0, 0)
    assert [v.bits for v in found] == [8, 32] * 2
    assert all(v.config["classifier.w_bits"] == 8 for v in found)
    assert bits(pinned, found[1].config) == {8, 32}


def test_no_subnet_is_scored_twice(space):
    """A space of one architecture has two precisions and no more."""
    names = [d.name for d in space.dimensions if d.kind is not DimensionKind.W_BITS]
    largest = space.max_config()
    single = space.restrict(choices={name: [largest[name]] for name in names})
    found = variants(single, 5, 0)
    assert [(v.subnet, v.bits) for v in found] == [("smallest", 8), ("smallest", 32)]


def test_stale_statistics_are_those_of_the_largest_subnet(space):
    """Whatever is scored before must not change what a subnet is without recalibration."""
    data = load_data(DataConfig(seed=0))
    torch.manual_seed(0)
    supernet = build_supernet(space)
    supernet.activate(space.max_config())
    recalibrate(supernet, data.train.images[:256])
    small, large = (
        Variant(n, 32, {}, c)
        for n, c in (("smallest", space.min_config()), ("largest", space.max_config()))
    )
    alone = evaluate(supernet, space.min_config(), data, recalibrated=False).accuracy
    seen = []
    first, second = scores(supernet, data, [large, small], lambda *a: seen.append(a))
    assert second.stale_accuracy == pytest.approx(100 * alone)
    assert second.accuracy == pytest.approx(100 * evaluate(supernet, small.config, data).accuracy)
    assert (second.macs, second.bytes) == (
        cost(space.layer_specs(small.config)).macs,
        cost(space.layer_specs(small.config)).bytes,
    )
    assert seen[0] == ("evaluate", 0, 4)
    assert seen[-1] == ("evaluate", 4, 4)
    assert first.subnet == "largest"
    assert scores(supernet, data, [], silent) == []
