from __future__ import annotations

import numpy as np
import pytest

from supernet.samplers import HessianBitsConfig, SandwichConfig, SandwichSampler
from supernet.schedule import Horizon

HORIZON = Horizon(first_step=10, steps=100, steps_per_epoch=10)
TRACES = {"block0.conv": 5.0, "block1.conv": 1.0, "block2.conv": 1.0, "block3.conv": 1.0}


@pytest.fixture
def sampler(plain):
    space = plain(depth=(4,))
    config = SandwichConfig(bits=HessianBitsConfig(refresh=5))
    sampler = SandwichSampler(space, 400, 0, config, HORIZON)
    sampler.set_traces(10, TRACES)
    return sampler


def drawn(sampler, step):
    draws = sampler.sample(step)[1:-1]
    return np.array([[d.config[f"block{j}.conv.w_bits"] for j in range(4)] for d in draws])


def test_in_the_end_sensitive_layers_draw_bits_in_proportion(sampler):
    bits = drawn(sampler, 105)
    shares = [(bits[:, 0] == b).mean() for b in (2, 4, 8)]
    np.testing.assert_allclose(shares, np.array([2, 4, 8]) / 14, atol=0.08)
    others = [(bits[:, 1:] == b).mean() for b in (2, 4, 8)]
    np.testing.assert_allclose(others, 1 / 3, atol=0.06)


def test_in_the_beginning_nearly_all_configs_have_the_same_bits_everywhere(sampler):
    assert sampler.bits.probability(10) == pytest.approx(0.1)
    bits = drawn(sampler, 10)
    same = (bits == bits[:, :1]).all(1)
    assert 0.8 < same.mean() < 1
    shares = [(bits[same][:, 0] == b).mean() for b in (2, 4, 8)]
    np.testing.assert_allclose(shares, 1 / 3, atol=0.1)


def test_traces_are_asked_for_at_once_and_then_rarely(plain):
    config = SandwichConfig(bits=HessianBitsConfig(refresh=5))
    sampler = SandwichSampler(plain(), 1, 0, config, HORIZON)
    asked = []
    for step in range(10, 110):
        if sampler.trace_probes(step):
            sampler.set_traces(step, TRACES)
            asked.append(step)
    assert asked == [10, 60]
