from __future__ import annotations

import numpy as np
import pytest

from predictors import (
    Configs,
    ConfigSchema,
    InvalidTargetError,
    NotFittedError,
    RidgeLatencyPredictor,
    TooFewSamplesError,
    cost_features,
    scores,
    spearman,
)
from predictors.features import totals
from predictors.latency import Amount, Column
from spaces.population import sample
from tests.predictors.latency.on_space import OnSpace


def measured(space, device, seed, count=10):
    rng = np.random.default_rng(seed)
    latency = device(seed)
    pool = sample(space, 1000, rng)
    chosen = pool[OnSpace(RidgeLatencyPredictor, space).choose(pool, count, rng)]
    held_out = sample(space, 300, rng)
    noise = np.exp(rng.normal(0, 0.01, count))
    return chosen, latency(chosen) * noise, held_out, latency(held_out)


def test_ten_measurements_rank_an_unseen_device_far_better_than_macs(space, device):
    found, by_macs = [], []
    for seed in range(4):
        chosen, ms, held_out, truth = measured(space, device, seed)
        mean, std = OnSpace(RidgeLatencyPredictor, space).fit(chosen, ms).predict(held_out)
        found.append(scores(truth, mean, std))
        macs = np.exp(totals(cost_features(space, held_out))[:, 0])
        by_macs.append(scores(truth, macs)["spearman"])
    assert np.mean([f["spearman"] for f in found]) > max(0.98, np.mean(by_macs) + 0.02)
    assert np.mean([f["mape"] for f in found]) < 6
    assert 0.75 < np.mean([f["coverage90"] for f in found]) <= 1.0


def test_more_measurements_make_it_better(space, device):
    errors = []
    for count in (5, 10, 100):
        of_count = []
        for seed in range(4):
            rng = np.random.default_rng(seed)
            latency, configs = device(seed), sample(space, count, rng)
            held_out = sample(space, 200, rng)
            predictor = OnSpace(RidgeLatencyPredictor, space).fit(configs, latency(configs))
            of_count.append(scores(latency(held_out), predictor.predict(held_out)[0])["mape"])
        errors.append(np.mean(of_count))
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 5


@pytest.mark.parametrize("factor", [0.25, 4.0])
def test_one_outlier_does_not_spoil_it(space, device, factor):
    errors = []
    for seed in range(4):
        chosen, ms, held_out, truth = measured(space, device, seed)
        ms[seed] *= factor
        mean, _ = OnSpace(RidgeLatencyPredictor, space).fit(chosen, ms).predict(held_out)
        errors.append(scores(truth, mean)["mape"])
    assert np.mean(errors) < 14


def test_a_slower_clock_scales_the_prediction(space, device):
    chosen, ms, held_out, _ = measured(space, device, 1)
    slow, _ = OnSpace(RidgeLatencyPredictor, space).fit(chosen, ms * 1000).predict(held_out)
    fast, _ = OnSpace(RidgeLatencyPredictor, space).fit(chosen, ms).predict(held_out)
    assert slow == pytest.approx(fast * 1000, rel=1e-6)


def test_rates_are_never_negative_and_uncertainty_grows_away_from_the_data(space, device):
    small = sample(space.restrict(choices={"stage*.depth": (1,)}), 30, np.random.default_rng(0))
    predictor = OnSpace(RidgeLatencyPredictor, space).fit(small, device(0)(small))
    assert (predictor.predictor._rates >= 0).all()
    largest = space.max_config().indices[None]
    mean_far, std_far = predictor.predict(largest)
    mean_near, std_near = predictor.predict(small)
    assert (std_far / mean_far)[0] > np.median(std_near / mean_near)


def test_choice_is_deterministic_distinct_and_ignores_twins(space):
    pool = sample(space, 60, np.random.default_rng(0))
    doubled = np.concatenate([pool, pool])
    predictor = OnSpace(RidgeLatencyPredictor, space)
    first = predictor.choose(doubled, 10, np.random.default_rng(1))
    assert first.tolist() == predictor.choose(doubled, 10, np.random.default_rng(1)).tolist()
    assert len(set(first.tolist())) == 10
    assert (first < 60).all()
    with pytest.raises(TooFewSamplesError, match="pool of 60"):
        predictor.choose(doubled, 61, np.random.default_rng(1))


def test_chosen_configs_beat_the_worst_of_random_ones(space, device):
    """A design guards against unlucky samples: compare the mean over devices with random picks'
    ninetieth percentile."""
    designed, random = [], []
    for seed in range(4):
        chosen, ms, held_out, truth = measured(space, device, seed)
        designed.append(
            scores(
                truth, OnSpace(RidgeLatencyPredictor, space).fit(chosen, ms).predict(held_out)[0]
            )["mape"]
        )
        for repeat in range(2):
            rng = np.random.default_rng([seed, repeat])
            picked = sample(space, 10, rng)
            predictor = OnSpace(RidgeLatencyPredictor, space).fit(picked, device(seed)(picked))
            random.append(scores(truth, predictor.predict(held_out)[0])["mape"])
    assert np.mean(designed) < np.quantile(random, 0.9)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda c, y: (c[:4], y[:4]), TooFewSamplesError, "at least 5 different"),
        (lambda c, y: (np.repeat(c[:2], 5, 0), y), TooFewSamplesError, "got 2"),
        (lambda c, y: (c, np.where(np.arange(10) == 3, np.nan, y)), InvalidTargetError, "number 3"),
        (lambda c, y: (c, np.where(np.arange(10) == 2, 0.0, y)), InvalidTargetError, "above 0"),
        (lambda c, y: (c, np.full(10, 0.7)), InvalidTargetError, "all 10 latencies are 0.7 ms"),
        (lambda c, y: (c, y[:9]), InvalidTargetError, "10 configs but latencies of shape"),
    ],
)
def test_bad_measurements_are_typed_errors(space, device, change, error, message):
    chosen, ms, _, _ = measured(space, device, 0)
    with pytest.raises(error, match=message):
        OnSpace(RidgeLatencyPredictor, space).fit(*change(chosen, ms))


def test_a_prediction_needs_a_fit(space, device):
    _, _, held_out, _ = measured(space, device, 0)
    with pytest.raises(NotFittedError, match="ridge was asked to predict before"):
        OnSpace(RidgeLatencyPredictor, space).predict(held_out)


def test_kernel_latencies_make_few_measurements_enough(space, device):
    plain, helped = [], []
    for seed in range(3):
        chosen, ms, held_out, truth = measured(space, device, seed)
        latency = device(seed)

        def kernels(population, latency=latency, seed=seed):
            """Two templates; what lies between kernels and a common factor are not in them."""
            noise = np.exp(np.random.default_rng(seed).normal(0, 0.01, len(population)))
            whole = 0.7 * latency(population) * noise
            return np.column_stack([0.4 * whole, 0.6 * whole])

        without = OnSpace(RidgeLatencyPredictor, space).fit(chosen, ms)
        known = OnSpace(RidgeLatencyPredictor, space, kernels).fit(chosen, ms)
        plain.append(scores(truth, *without.predict(held_out)))
        helped.append(scores(truth, *known.predict(held_out)))
    assert np.mean([f["mape"] for f in helped]) < 0.6 * np.mean([f["mape"] for f in plain])
    assert np.mean([f["spearman"] for f in helped]) > np.mean([f["spearman"] for f in plain])
    assert np.mean([f["coverage90"] for f in helped]) > 0.75


def test_a_config_without_any_cost_does():
    """As in NAS-Bench-201, where every operator may be `none`."""
    schema = ConfigSchema((Column("a", tuple(range(30)), "a"),), (Amount("macs", 1.0),))
    codes = np.arange(30, dtype=np.int16)[:, None]
    amounts = np.arange(30.0)[:, None] * (codes % 3 > 0)
    configs = Configs(schema, codes, amounts)
    predictor = RidgeLatencyPredictor(schema)
    rows = predictor.choose(configs, 3, np.random.default_rng(0))
    assert len(set(rows.tolist())) == 3
    latency = 1.0 + 2.0 * amounts[:, 0]
    mean, std = predictor.fit(configs, latency).predict(configs)
    assert (np.isfinite(mean) & (mean > 0) & np.isfinite(std)).all()
    assert spearman(mean, latency) > 0.95
