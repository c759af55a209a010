from __future__ import annotations

import pytest
import torch

from spaces import UnknownNameError, get_space
from spaces.families import FAMILIES
from spaces.layer_spec import Operator
from supernet.families import SUPERNETS, MobileNetV3Supernet, build_supernet


@pytest.fixture(scope="module")
def supernet():
    return build_supernet(get_space("mobilenetv3_digits"))


def test_every_family_has_a_supernet():
    assert "mobilenetv3" in SUPERNETS.names()
    assert SUPERNETS.names() == FAMILIES.names()
    with pytest.raises(UnknownNameError, match="mobilenetv3"):
        SUPERNETS.get("mobilenetv2")


def test_layers_are_the_sites_of_the_largest_config(supernet):
    assert isinstance(supernet, MobileNetV3Supernet)
    space = supernet.space
    sites = [
        s.site
        for s in space.layer_specs(space.max_config())
        if s.operator is not Operator.GLOBAL_POOL
    ]
    assert list(supernet.layers()) == sites


@pytest.mark.parametrize("which", ["max", "min"])
def test_every_resolution_gives_logits(supernet, which):
    space = supernet.space
    base = space.max_config() if which == "max" else space.min_config()
    for resolution in space.dimensions[space.position("resolution")].choices:
        supernet.activate(space.config({**base, "resolution": resolution}))
        assert supernet.resolution == resolution
        assert supernet(torch.rand(2, 1, resolution, resolution)).shape == (2, 10)


def test_depth_keeps_the_first_blocks(supernet):
    space = supernet.space
    supernet.activate(space.config({**space.max_config(), "stage2.depth": 1}))
    present = {b.site for b in supernet.blocks if b.present}
    assert "stage2.block0" in present
    assert not {"stage2.block1", "stage2.block2"} & present
    assert "stage3.block2" in present
