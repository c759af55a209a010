"""The families that netcarve ships pass the tests that it ships."""

from __future__ import annotations

import pytest

from spaces import SPACES, cost, get_space
from supernet.supernet import PRECISION_KINDS
from supernet.testing import FamilyConformance
from tests.supernet.tiny_mobilenet import tiny_mobilenet_space
from tests.supernet.tiny_vit import tiny_vit_space

LARGE = 10**8
"""Multiply-accumulates of a network for which modules are built in one architecture, but for their
first stage."""


class TestPresets(FamilyConformance):
    configs = 1
    images = 4

    @pytest.fixture(scope="class", params=SPACES.names())
    def space(self, request):
        return get_space(request.param)

    def module_space(self, space):
        if cost(space.layer_specs(space.max_config())).macs < LARGE:
            return space
        fixed = {
            d.name: d.choices[:1]
            for d in space.dimensions
            if d.kind not in PRECISION_KINDS and not d.name.startswith("stage1.")
        }
        return space.restrict(choices=fixed)


class TestLayerNorm(FamilyConformance):
    configs = 2
    images = 8

    @pytest.fixture(scope="class")
    def space(self):
        return tiny_vit_space("layer")


class TestWithoutExpandLayers(FamilyConformance):
    configs = 2
    images = 8

    @pytest.fixture(scope="class")
    def space(self):
        return tiny_mobilenet_space()
