from __future__ import annotations

import numpy as np
import pytest

from predictors import LATENCY_PREDICTORS, SpaceEncoding, TableError, scores, spearman
from predictors.latency import AdaptiveLatencyPredictor, LatencyTables, RidgeLatencyPredictor
from predictors.latency.blocks import FeatureBlocks
from spaces.population import sample
from tests.predictors.latency.on_space import OnSpace
from tests.predictors.latency.on_tables import (
    edges,
    edges_device,
    edges_schema,
    edges_tables,
    nasbench,
    random_edges,
)

POOL = random_edges(250, 0)
TEST = random_edges(600, 1).take(np.arange(300, 600))


@pytest.fixture(scope="module")
def learned():
    return AdaptiveLatencyPredictor(edges_schema()).learn(edges_tables(POOL))


def adapted(predictor, device, count=10, change=lambda ms: ms):
    samples = POOL.take(predictor.choose(POOL, count, np.random.default_rng(0)))
    return predictor.fit(samples, change(device(samples)))


def new_devices():
    """Unlike those of the tables: no kind of theirs."""
    return [edges_device(seed, 10 + seed) for seed in range(4)]


def test_other_devices_help_and_intervals_hold(learned):
    alone = AdaptiveLatencyPredictor(edges_schema())
    macs = LATENCY_PREDICTORS.get("macs")(edges_schema())
    found, without, by_macs = [], [], []
    for device in new_devices():
        truth = device(TEST)
        found.append(scores(truth, *adapted(learned, device).predict(TEST)))
        without.append(scores(truth, *adapted(alone, device).predict(TEST)))
        by_macs.append(scores(truth, *adapted(macs, device).predict(TEST)))
    mean = {
        name: np.mean([s["spearman"] for s in each])
        for name, each in (("with", found), ("without", without), ("macs", by_macs))
    }
    assert mean["with"] > 0.95
    assert mean["with"] > mean["macs"] + 0.03
    assert mean["with"] >= mean["without"]
    assert 0.75 < np.mean([s["coverage90"] for s in found]) <= 1.0
    assert np.mean([s["mape"] for s in found]) < 12


def test_a_space_without_tables_is_predicted_as_well_as_by_costs(space, device):
    found, by_costs = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        latency = device(seed)
        pool, held_out = sample(space, 600, rng), sample(space, 300, rng)
        for kind, scored in (
            (AdaptiveLatencyPredictor, found), (RidgeLatencyPredictor, by_costs)
        ):  # fmt: skip
            predictor = OnSpace(kind, space)
            chosen = pool[predictor.choose(pool, 10, np.random.default_rng(1))]
            noisy = latency(chosen) * np.exp(np.random.default_rng(2).normal(0, 0.01, 10))
            mean = predictor.fit(chosen, noisy).predict(held_out)[0]
            scored.append(scores(latency(held_out), mean)["spearman"])
    assert np.mean(found) > 0.97
    assert np.mean(found) > np.mean(by_costs) - 0.01


def test_more_samples_make_it_better(learned):
    errors = [
        np.mean([
            scores(device(TEST), adapted(learned, device, count).predict(TEST)[0])["mape"]
            for device in new_devices()
        ])
        for count in (4, 10, 60)
    ]  # fmt: skip
    assert errors[2] < errors[1] < errors[0]


def test_one_sample_ten_times_too_slow_leaves_the_ranks(learned):
    for count, place in ((10, 3), (10, 7), (40, 11)):
        device = new_devices()[0]

        def disturb(ms, place=place):
            return np.where(np.arange(len(ms)) == place, 10.0 * ms, ms)

        mean, std = adapted(learned, device, count, disturb).predict(TEST)
        assert np.isfinite(std).all()
        assert spearman(device(TEST), mean) > 0.9
        assert scores(device(TEST), mean)["mape"] < 25


def test_whole_milliseconds_do(learned):
    device = new_devices()[1]
    scale = 40.0 / np.median(device(POOL))
    mean, _ = adapted(
        learned, lambda configs: scale * device(configs), change=np.rint
    ).predict(TEST)  # fmt: skip
    assert spearman(device(TEST), mean) > 0.9


def test_a_slower_clock_scales_mean_and_std(learned):
    device = new_devices()[2]
    mean, std = adapted(learned, device).predict(TEST)
    slow, wide = adapted(learned, lambda configs: 1000.0 * device(configs)).predict(TEST)
    assert slow == pytest.approx(1000.0 * mean, rel=1e-6)
    assert wide == pytest.approx(1000.0 * std, rel=1e-6)


def test_the_choice_is_distinct_repeatable_and_better_than_random_ones(learned):
    rows = learned.choose(POOL, 10, np.random.default_rng(0))
    assert rows.tolist() == learned.choose(POOL, 10, np.random.default_rng(0)).tolist()
    assert len(set(rows.tolist())) == 10
    random, designed = [], []
    for number, device in enumerate(new_devices()):
        designed.append(spearman(device(TEST), adapted(learned, device).predict(TEST)[0]))
        for seed in range(4):
            some = np.random.default_rng([number, seed]).permutation(len(POOL))[:10]
            learned.fit(POOL.take(some), device(POOL)[some])
            random.append(spearman(device(TEST), learned.predict(TEST)[0]))
    assert np.mean(designed) > np.mean(random)


@pytest.mark.parametrize("tables", [True, False])
def test_a_saved_one_predicts_the_same(learned, tables, tmp_path):
    predictor = learned if tables else AdaptiveLatencyPredictor(edges_schema())
    adapted(predictor, new_devices()[0])
    predictor.save(tmp_path / "it.safetensors")
    loaded = AdaptiveLatencyPredictor.load(tmp_path / "it.safetensors")
    for found, wanted in zip(loaded.predict(TEST), predictor.predict(TEST), strict=True):
        assert found == pytest.approx(wanted, rel=1e-9)
    rows = loaded.choose(POOL, 5, np.random.default_rng(0))
    assert rows.tolist() == predictor.choose(POOL, 5, np.random.default_rng(0)).tolist()


def test_gaps_in_the_tables_are_bridged(learned):
    tables = edges_tables(POOL)
    rng = np.random.default_rng(0)
    holes = {
        name: np.where(rng.random(len(POOL)) < 0.4, np.nan, ms)
        for name, ms in tables.latencies.items()
    }
    predictor = AdaptiveLatencyPredictor(edges_schema()).learn(
        LatencyTables(POOL, holes, tables.families)
    )
    device = new_devices()[0]
    assert spearman(device(TEST), adapted(predictor, device).predict(TEST)[0]) > 0.93


def test_what_the_tables_lack_is_learnt_from_the_samples():
    """As when tables are in float32 and the space has integers: a choice that no table shows."""
    codes = POOL.codes[(POOL.codes != 3).all(axis=1)]
    known = edges(codes.astype(np.int64))
    predictor = AdaptiveLatencyPredictor(edges_schema()).learn(edges_tables(known))
    device = edges_device(0, 10)
    shown = random_edges(40, 5)
    mean, _ = predictor.fit(shown, device(shown)).predict(TEST)
    dear = (TEST.codes == 3).sum(axis=1) >= 2
    assert spearman(device(TEST)[dear], mean[dear]) > 0.8
    assert scores(device(TEST)[dear], mean[dear])["mape"] < 25


def test_a_table_of_another_space_is_refused(learned, space):
    encoding = SpaceEncoding(space)
    rows = encoding(sample(space, 5, np.random.default_rng(0)))
    with pytest.raises(TableError, match="another search space"):
        learned.learn(LatencyTables(rows, {"a": np.arange(1.0, 6.0)}))


def test_blocks_extended_by_new_variation_keep_what_they_had():
    few = edges(np.zeros((20, 6), np.int64) + np.arange(20)[:, None] % 3)
    blocks = FeatureBlocks.of(few)
    wide = blocks.extended(POOL)
    for name, values in blocks(few).items():
        old = blocks.scale[name] > 0
        assert wide(few)[name][:, old] == pytest.approx(values[:, old])
    assert (wide.scale["choices"] > 0).sum() == 30 > (blocks.scale["choices"] > 0).sum()


def test_real_phones_are_ranked_after_learning_from_others():
    devices = ("1080ti_1", "1080ti_256", "silver_4114", "samsung_a50", "samsung_s7", "titanx_32")
    pool, test = nasbench(500, 600, devices)
    found = []
    phones = ("samsung_a50", "samsung_s7")
    predictor = AdaptiveLatencyPredictor(pool.configs.schema).learn(pool.without(phones))
    # One design of ten samples says little about intervals: a design for each quarter of the pool.
    for quarter in range(4):
        some = pool.take(np.arange(quarter, 500, 4))
        rows = predictor.choose(some.configs, 10, np.random.default_rng(0))
        for phone in phones:
            predictor.fit(some.configs.take(rows), some.latencies[phone][rows])
            found.append(scores(test.latencies[phone], *predictor.predict(test.configs)))
    assert np.mean([s["spearman"] for s in found]) > 0.94
    assert 0.75 < np.mean([s["coverage90"] for s in found]) < 0.99


def test_costs_count_by_how_well_they_predict_left_out_samples(space):
    rng = np.random.default_rng(0)
    population = sample(space, 40, rng)
    encoding = SpaceEncoding(space)
    configs = encoding(population)
    noise = np.exp(rng.normal(0, 0.05, 40))
    additive = configs.amounts @ encoding.schema.nominal_ms * noise
    # Latency that no cost explains: what each resolution takes is drawn by lot.
    column = [c.name for c in encoding.schema.columns].index("resolution")
    drawn = np.array([1.0, 5.0, 0.5, 3.0, 8.0, 2.0])[configs.codes[:, column]]
    shares, ranks = [], []
    for latency in (additive, drawn * (1.0 + 0.001 * rng.random(40))):
        predictor = AdaptiveLatencyPredictor(encoding.schema)
        predictor.fit(configs.take(np.arange(30)), latency[:30])
        mean, std = predictor.predict(configs.take(np.arange(30, 40)))
        assert (std > 0).all()
        shares.append(predictor._costs_share)
        ranks.append(spearman(latency[30:], mean))
    assert 0.0 <= shares[1] < 0.1 < shares[0] <= 1.0
    assert min(ranks) > 0.8
