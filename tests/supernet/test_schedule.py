from __future__ import annotations

import pytest

from supernet.schedule import Horizon, ramped_cosine


def test_places_and_shares_of_the_phase():
    horizon = Horizon(first_step=10, steps=30, steps_per_epoch=8)
    assert horizon.epochs == 4
    assert [horizon.place(step) for step in (10, 17, 18, 39)] == [(0, 0), (0, 7), (1, 0), (3, 5)]
    assert horizon.place(3) == (0, 0)
    assert [horizon.progress(step) for step in (3, 10, 25, 40, 99)] == [0, 0, 0.5, 1, 1]


def test_rates_rise_and_fall():
    rates = [ramped_cosine(step, 100, 0.05) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5] == 1.0
    assert rates[5:] == sorted(set(rates[5:]), reverse=True)
    assert rates[-1] == pytest.approx(0.05, abs=1e-3)
