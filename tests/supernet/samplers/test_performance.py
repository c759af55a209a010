from __future__ import annotations

import json

import numpy as np
import pytest

from supernet.samplers import PerformanceConfig, PerformanceSampler, Role
from supernet.schedule import Horizon
from tests.supernet.tiny_vit import tiny_vit_space

HORIZON = Horizon(first_step=0, steps=240, steps_per_epoch=40)


def build(space, **settings):
    config = PerformanceConfig(levels=3, candidates=3000, capacity=6, **settings)
    return PerformanceSampler(space, 3, 0, config, HORIZON)


def loss_of(config):
    return float(config.indices.sum() % 7) / 7


def run(sampler, steps):
    drawn = []
    for step in steps:
        drawn.append([draw.config.key for draw in sampler.sample(step)])
        sampler.observe(step, {c: loss_of(c) for c in sampler.to_score(step)})
    return drawn


def test_exploitation_rises_in_six_stairs(space):
    sampler = build(space)
    found = [sampler.exploit_probability(step) for step in range(0, 240, 40)]
    np.testing.assert_allclose(found, [0.2, 0.35, 0.5, 0.65, 0.8, 0.95])


def test_banks_keep_the_best_explored_configs_of_their_level(space):
    sampler = build(space, exploit_from=0.0, exploit_to=0.0)
    explored = [{}, {}, {}]
    for step in range(80):
        draws = sampler.sample(step)
        losses = {c: loss_of(c) for c in sampler.to_score(step)}
        assert {d.config for d in draws if d.role is Role.RANDOM} <= set(losses)
        sampler.observe(step, losses)
        explored[sampler.level(step)] |= {
            d.config.indices.tobytes(): -loss_of(d.config) for d in draws[:-1]
        }
    for bank, seen in zip(sampler.banks, explored, strict=True):
        assert sorted(bank.scores) == sorted(seen.values())[-6:]


def test_a_bank_more_than_half_full_is_drawn_from(space):
    sampler = build(space, exploit_from=1.0, exploit_to=1.0)
    run(sampler, range(60))
    assert all(bank.more_than_half_full for bank in sampler.banks)
    hits = total = 0
    for step in range(60, 90):
        bank = sampler.banks[sampler.level(step)]
        rows = {row.tobytes() for row in bank.rows}
        draws = sampler.sample(step)[:-1]
        at = draws[0].config["resolution"]
        if any(space.from_indices(row)["resolution"] == at for row in bank.rows):
            total += len(draws)
            hits += sum(d.config.indices.tobytes() in rows for d in draws)
    assert total > 0
    assert hits == total


def test_scores_are_refreshed_each_quarter_and_all_of_them_each_epoch(space):
    sampler = build(space, exploit_from=1.0, exploit_to=1.0)
    run(sampler, range(80))
    banked = [{space.from_indices(row) for row in bank.rows} for bank in sampler.banks]
    sampler.sample(80)
    assert set().union(*banked) <= set(sampler.to_score(80))
    sampler.sample(90)
    assert banked[sampler.level(90)] <= set(sampler.to_score(90))
    other = banked[(sampler.level(90) + 1) % 3]
    assert not other <= set(sampler.to_score(90))
    sampler.sample(91)
    assert len(sampler.to_score(91)) <= 3
    row = sampler.banks[0].rows[0]
    sampler.observe(80, {space.from_indices(row): 9.0})
    assert sampler.banks[0].scores[0] == -9.0


def test_of_equal_candidates_the_wide_shallow_one_is_preferred(plain):
    space = plain(resolution=(8,), w_bits=(8,), a_bits=(8,), symmetry=("symmetric",))
    sampler = build(space)
    ones = {f"block{j}.expansion": 1 for j in range(4)}
    fixed = {f"block{j}.conv.{k}": 8 for j in range(4) for k in ("w_bits", "a_bits")}
    common = {"resolution": 8, "weight.symmetry": "symmetric", **ones, **fixed}
    rows = [
        space.config({**common, "width": width, "depth": depth}).indices
        for width, depth in ((16, 4), (32, 1))
    ]
    anchor = space.config({**common, "width": 16, "depth": 1}).indices
    preference = sampler.depth_preference(np.stack(rows), anchor)
    assert preference.argmin() == 1


@pytest.mark.parametrize("stop", [37, 80])
def test_a_resumed_sampler_goes_on_alike(space, stop):
    whole, first, second = build(space), build(space), build(space)
    draws = run(whole, range(120))
    run(first, range(stop))
    second.load_state(json.loads(json.dumps(first.state())))
    assert run(second, range(stop, 120)) == draws[stop:]
    assert second.state() == whole.state()


def test_heads_are_widths_of_transformer_stages():
    space = tiny_vit_space()
    sampler = build(space)
    rows = np.stack([space.max_config().indices] * 2)
    heads = [i for i, d in enumerate(space.dimensions) if d.kind == "heads"]
    narrow, few = rows[0].copy(), rows[0].copy()
    narrow[heads] = 0
    few[[i for i, d in enumerate(space.dimensions) if d.kind == "depth"]] = 0
    by_width = sampler.depth_preference(rows, space.from_indices(narrow).indices)
    by_depth = sampler.depth_preference(rows, space.from_indices(few).indices)
    assert (by_width < 0).all()
    assert (by_depth > 0).all()
