from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supernet.families import ResNetSupernet
from supernet.supernet import Supernet
from supernet.testing import (
    check_cost,
    check_extraction,
    check_integers,
    check_views,
    in_float,
    random_configs,
    sample_images,
    sample_supernet,
)
from tests.supernet.resnets import basic_space, bottleneck_space, form_space

contract = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SEEDS = given(seed=st.integers(0, 10**6))


@pytest.fixture(scope="module", params=[basic_space, bottleneck_space, form_space])
def supernet(request) -> Supernet:
    return sample_supernet(request.param())


@pytest.fixture(scope="module")
def images(supernet):
    return sample_images(supernet.space, 32, seed=1)


def random_config(supernet, seed):
    return random_configs(supernet.space, 1, seed)[-1]


@contract
@SEEDS
def test_activation_copies_no_weight(supernet, seed):
    check_views(supernet, random_config(supernet, seed))


@contract
@SEEDS
def test_extracted_subnets_equal_the_active_supernet(supernet, images, seed):
    config = random_config(supernet, seed)
    check_extraction(supernet, config, images)
    check_extraction(supernet, in_float(config), images)


@contract
@SEEDS
def test_the_analytic_cost_is_exact(supernet, seed):
    check_cost(supernet.extract(random_config(supernet, seed)))


@contract
@SEEDS
def test_integers_are_those_that_are_trained(supernet, seed):
    config = random_config(supernet, seed)
    layers = [s.precision for s in supernet.space.layer_specs(config)]
    compared = check_integers(supernet, config)
    # The weight of every integer layer, and its input unless a projection reads the same.
    integer = sum(precision.integer for precision in layers)
    assert integer <= compared <= 2 * integer
    assert bool(compared) == bool(integer)


def test_what_reads_a_block_quantises_its_input_once(supernet):
    assert isinstance(supernet, ResNetSupernet)
    names = [name for name, _ in supernet.named_parameters()]
    assert any(".first.input_quantizer." in name for name in names)
    assert not any(".projection.input_quantizer." in name for name in names)
    space = supernet.space
    bits = {name: 8 for name in space.names if name.endswith("w_bits")}
    state = supernet.extract(space.config({**space.max_config(), **bits})).state_dict()
    for stage in (1, 2):
        for role in ("input_scale", "input_zero_point"):
            one, other = (state[f"stage{stage}.block0.{n}.{role}"] for n in ("projection", "conv1"))
            assert torch.equal(one, other)
        scales = [state[f"stage{stage}.block{j}.conv1.input_scale"] for j in (0, 1)]
        assert not torch.equal(*scales)


def test_depth_keeps_the_first_blocks(supernet):
    space = supernet.space
    supernet.activate(space.config({**space.max_config(), "stage1.depth": 1}))
    present = [block.site for block in supernet.blocks if block.present]
    assert present == ["stage1.block0", "stage2.block0", "stage2.block1"]


def test_groups_cover_every_elastic_width(supernet):
    groups = {group.name: group for group in supernet.channel_groups()}
    inner = ["conv1"] if supernet.space.name == "basic" else ["conv1", "conv2"]
    blocks = [f"stage{i}.block{j}" for i in (1, 2) for j in (0, 1)]
    inside = {f"{block}.{name}" for block in blocks for name in inner}
    assert set(groups) == {"stem", "stage1", "stage2"} | inside
    # The residual stream: projection and last convolutions write it, the next stage reads it twice.
    last = "conv2" if supernet.space.name == "basic" else "conv3"
    assert [w.options.largest.site for w in groups["stage1"].writers] == [
        "stage1.block0.projection", f"stage1.block0.{last}", f"stage1.block1.{last}"
    ]  # fmt: skip
    assert [r.options.largest.site for r in groups["stage1"].readers] == [
        "stage1.block1.conv1", "stage2.block0.conv1", "stage2.block0.projection"
    ]  # fmt: skip
