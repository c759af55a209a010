from __future__ import annotations

import numpy as np
import pytest

from supernet.samplers import SandwichConfig, SandwichSampler, TriangleBitsConfig
from supernet.schedule import Horizon

WAVE = 200


@pytest.fixture(scope="module")
def many(plain):
    """Twelve layers of equal size."""
    return plain(
        resolution=(8,), width=(16,), depth=(12,), expansion=(1,), w_bits=tuple(range(2, 9))
    )


def averages(space, bits, steps):
    config = SandwichConfig(bits=bits)
    sampler = SandwichSampler(space, 4, 0, config, Horizon(steps=10**6))
    names = [n for n in space.names if n.endswith("w_bits")]
    return np.array(
        [
            np.mean([[d.config[n] for n in names] for d in sampler.sample(step)[1:-1]], axis=1)
            for step in steps
        ]
    )


def test_averages_follow_the_wave_and_spread_evenly(many):
    found = averages(many, TriangleBitsConfig(wave=WAVE), range(WAVE))
    wave = np.abs(2 * np.arange(WAVE) / WAVE - 1)
    assert np.corrcoef(found.mean(1), wave)[0, 1] > 0.95
    shares = np.histogram(found, bins=8, range=(2, 8))[0] / found.size
    assert ((shares > 0.5 / 8) & (shares < 2 / 8)).all()
    # Drawn layer by layer, nearly all configs have about the same average.
    usual = averages(many, SandwichConfig().bits, range(50))
    assert np.histogram(usual, bins=8, range=(2, 8))[0][3:5].sum() / usual.size > 0.7


def test_troughs_and_crests_reach_the_fewest_and_the_most_bits(many):
    found = averages(many, TriangleBitsConfig(wave=WAVE), range(WAVE))
    assert found[: WAVE // 50].mean() > 7.5
    assert found[WAVE // 2].mean() < 2.5


def test_few_coarse_bits_are_drawn_as_well(plain):
    """Averages that no config has take the nearest that exist."""
    coarse = plain(depth=(1,), w_bits=(2, 8))
    found = averages(coarse, TriangleBitsConfig(wave=20), range(20))
    assert set(found.ravel().tolist()) == {2.0, 8.0}
    assert found[10].mean() == 2.0
    assert found[0].mean() == 8.0
