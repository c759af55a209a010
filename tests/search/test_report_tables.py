from __future__ import annotations

from types import SimpleNamespace

import pytest

from search.report_tables import config_row
from spaces import SPACES, get_space
from tests.supernet.tiny_mobilenet import tiny_mobilenet_space

SPACE = {name: get_space(name) for name in SPACES.names()} | {"tiny": tiny_mobilenet_space()}


@pytest.mark.parametrize("name", SPACE)
def test_configs_of_every_family_are_told_without_the_blocks_that_they_skip(name):
    for config in (SPACE[name].min_config(), SPACE[name].max_config()):
        key, told = config_row(SimpleNamespace(key=config.key, config=config.active()))
        assert key == config.key
        assert f"resolution {config['resolution']}" in told
        blocks = {s.site.split(".")[1] for s in config.space.layer_specs(config)
                  if s.site.startswith("stage1.")}  # fmt: skip
        assert {b for b in ("block0", "block1") if f"stage1.{b}:" in told} == blocks & {
            "block0", "block1"
        }  # fmt: skip


def test_bits_are_those_of_the_layers_in_their_order():
    space = SPACE["tiny"]
    config = space.config({**space.max_config(), "stage1.block0.project.w_bits": 8})
    _, told = config_row(SimpleNamespace(key="k", config=config.active()))
    assert "stage1.block0: expansion 1, kernel 5, se 1, project.a_bits 8, 32/8 bits" in told
    assert "stage2.block1: expansion 3, kernel 5, se 1, 32/32/32 bits" in told
