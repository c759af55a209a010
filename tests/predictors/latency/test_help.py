from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from predictors import (
    LATENCY_PREDICTORS,
    Configs,
    LatencyTables,
    NotFittedError,
    TooFewSamplesError,
    scores,
    spearman,
)
from predictors.latency import (
    HelpLatencyPredictor,
    HelpSettings,
    MacsLatencyPredictor,
    ScratchLatencyPredictor,
)
from predictors.latency.device_models import DeviceModels
from predictors.latency.help_adaptation import network_output
from predictors.latency.help_network import divergence, posterior
from predictors.latency.help_tasks import Devices, as_tensor
from predictors.latency.help_training import Learned, _episode_loss
from tests.predictors.latency.on_tables import (
    edges_device,
    edges_schema,
    edges_tables,
    nasbench,
    random_edges,
)

SMALL = HelpSettings(episodes=150, hidden=32, queries=50, tasks=6, learning_rate=2e-3, draws=4)
POOL = random_edges(250, 0)
TEST = random_edges(600, 1).take(np.arange(300, 600))
NEW_KINDS = (11, 12, 13)


@pytest.fixture(scope="module")
def learned():
    return HelpLatencyPredictor(edges_schema(), settings=SMALL).learn(edges_tables(POOL))


def chosen(predictor, count=10):
    rows = predictor.choose(POOL, count, np.random.default_rng(0))
    return POOL.take(rows)


def test_ten_measurements_beat_the_same_network_alone_and_macs(learned):
    found = {"help": [], "scratch": [], "macs": []}
    coverage = []
    for kind in NEW_KINDS:
        device = edges_device(0, kind)
        for name, predictor in (
            ("help", learned),
            ("scratch", ScratchLatencyPredictor(edges_schema(), SMALL)),
            ("macs", MacsLatencyPredictor(edges_schema())),
        ):
            samples = chosen(predictor)
            mean, std = predictor.fit(samples, device(samples)).predict(TEST)
            scored = scores(device(TEST), mean, std)
            found[name].append(scored["spearman"])
            if name == "help":
                coverage.append(scored["coverage90"])
    mean = {name: np.mean(values) for name, values in found.items()}
    assert mean["help"] > max(0.85, mean["scratch"] + 0.1, mean["macs"] + 0.1), mean
    assert np.mean(coverage) > 0.7


@pytest.mark.slow
def test_real_devices_are_ranked_after_learning_from_others():
    training = ("1080ti_1", "1080ti_32", "1080ti_256", "silver_4114", "samsung_a50", "pixel3")
    new = ("titanx_1", "titanx_256", "gold_6240")
    tables, held_out = nasbench(300, 500, training + new)
    settings = replace(SMALL, episodes=200, hidden=48)
    predictor = HelpLatencyPredictor(tables.configs.schema, settings=settings)
    predictor.learn(tables.without(new))
    rows = predictor.choose(tables.configs, 10, np.random.default_rng(0))
    alone, macs = (
        k(tables.configs.schema) for k in (ScratchLatencyPredictor, MacsLatencyPredictor)
    )
    found = {"help": [], "scratch": [], "macs": []}
    for device in new:
        truth = held_out.latencies[device]
        for each in (predictor, alone, macs):
            each.fit(tables.configs.take(rows), tables.latencies[device][rows])
            found[each.name].append(spearman(truth, each.predict(held_out.configs)[0]))
    mean = {name: np.mean(values) for name, values in found.items()}
    assert mean["help"] > max(0.85, mean["scratch"] + 0.1, mean["macs"] + 0.05), mean


def test_learning_is_a_function_of_its_seed_and_leaves_torch_alone():
    quick = replace(SMALL, episodes=5)
    tables, device = edges_tables(POOL), edges_device(0, 11)
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(found))
        before = torch.get_rng_state()
        steps = []
        predictor = HelpLatencyPredictor(
            edges_schema(),
            settings=replace(quick, seed=seed),
            progress=lambda *step, steps=steps: steps.append(step),
        ).learn(tables)
        samples = chosen(predictor)
        found.append(predictor.fit(samples, device(samples)).predict(TEST)[0])
        assert torch.equal(torch.get_rng_state(), before)
        assert steps == [(done, 5) for done in range(1, 6)]
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


@pytest.fixture(scope="module")
def devices():
    tables = edges_tables(POOL)
    models = DeviceModels.of(tables)
    return Devices.of(tables, models, models.encoding, np.arange(10))


def test_the_kl_term_is_the_mean_over_the_tasks(devices):
    learned = Learned.initial(devices.inputs.shape[1], 10, SMALL)
    # Far from the prior, and different for different devices.
    learned.modulation["z2.weight"].mul_(30.0)
    for tensor in learned.tensors():
        tensor.requires_grad_()
    settings = replace(SMALL, made_up=0.0, tasks=4)
    episode = devices.episode([0, 1, 2, 3], settings, np.random.default_rng(0))

    def loss(weight):
        how = replace(settings, kl_weight=weight)
        generator = torch.Generator().manual_seed(0)
        return _episode_loss(learned, episode, how, generator).item()

    each = divergence(*posterior(learned.modulation, episode.support.embedding))
    assert each.std() > 0.05 * each.mean()
    assert loss(1.0) - loss(0.0) == pytest.approx(each.mean().item(), rel=1e-3)


def test_predicting_with_mean_parameters_is_averaging_over_draws(learned):
    meta, samples = learned._learned(), chosen(learned)
    latency = edges_device(0, 11)(samples)
    adapted = meta.adapt(samples, latency)
    support = meta._tasks(
        meta.encoding(samples), latency, np.tile(latency, (SMALL.draws, 1)), np.ones((4, 10))
    )
    # Only the references' order makes this an embedding.
    support = replace(support, embedding=adapted.embedding.expand(SMALL.draws, -1))
    drawn = meta._adapted(support, meta._draws(support))
    each = network_output(drawn, as_tensor(adapted.encoding(TEST)), support.embedding)
    once = network_output(adapted.parameters, as_tensor(adapted.encoding(TEST)), adapted.embedding)[
        0
    ]
    assert each.std(axis=0).max() > 0
    assert np.abs(once - each.mean(axis=0)).mean() < 0.2 * each.std(axis=0).mean()


def test_divergence_is_that_of_normal_distributions():
    mean, std = torch.tensor([[0.5, -1.0]]), torch.tensor([[2.0, 0.3]])
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, std), normal(0.0, 1.0)).sum()
    assert float(divergence(mean, std)) == pytest.approx(float(expected), rel=1e-5)


def test_every_learning_rate_of_the_inner_loop_learns(learned):
    rates = learned._learned().learned.rates
    for name, values in rates.items():
        moved = (values - SMALL.inner_rate).abs()
        assert moved.max() > 1e-4, name
        if values.numel() > 1:
            assert values.std() > 0, name


def test_made_up_devices_are_as_many_as_asked_for_and_no_two_alike(devices):
    episode = devices.episode(
        range(6), replace(SMALL, tasks=6, made_up=0.5), np.random.default_rng(0)
    )
    assert len(episode.labels) == 6
    assert episode.support.embedding.shape == (6, 10)
    real = devices.embedding.astype(np.float32)
    known = [(np.abs(real - e.numpy()).max(axis=1) < 1e-6).any() for e in episode.support.embedding]
    assert known == [True] * 3 + [False] * 3


def test_it_needs_the_chosen_configs_and_nothing_else_of_a_device(learned):
    """The references are what `choose` gives: nothing of the embedding is filled in."""
    samples = chosen(learned)
    assert {tuple(c) for c in samples.codes} == {tuple(c) for c in learned.references.codes}
    latency = edges_device(0, 11)(samples)
    learned.fit(samples, latency)
    order = [
        int(np.flatnonzero((samples.codes == codes).all(axis=1))[0])
        for codes in learned.references.codes
    ]
    expected = (latency[order] - latency.min()) / np.ptp(latency)
    assert learned._adaptation.embedding.numpy()[0] == pytest.approx(expected, abs=1e-5)


def test_a_device_is_one_embedding_for_all_configs_and_its_speed_does_not_count(learned):
    samples = chosen(learned)
    latency = edges_device(0, 11)(samples)
    together, _ = learned.fit(samples, latency).predict(TEST)
    apart = np.concatenate([learned.predict(TEST.take([row]))[0] for row in range(5)])
    assert apart == pytest.approx(together[:5], rel=1e-4)
    slow, _ = learned.fit(samples, 1000 * latency).predict(TEST)
    assert slow == pytest.approx(1000 * together, rel=1e-4)


@pytest.mark.parametrize("what", ["others", "five", "more"])
def test_other_fewer_and_more_samples_than_the_references_do(learned, what):
    references, other = chosen(learned), POOL.take(np.arange(100, 110))
    samples = {
        "others": other,
        "five": references.take(np.arange(5)),
        "more": Configs.join([references, POOL.take(np.arange(100, 140)), references]),
    }[what]
    found = []
    for kind in NEW_KINDS:
        device = edges_device(0, kind)
        mean, std = learned.fit(samples, device(samples)).predict(TEST)
        assert (np.isfinite(mean) & (mean > 0) & np.isfinite(std) & (std > 0)).all()
        found.append(spearman(device(TEST), mean))
    assert np.mean(found) > 0.7


def test_a_pool_without_the_references_offers_those_most_like_them(learned):
    codes = {tuple(c) for c in learned.references.codes}
    without = POOL.take(np.array([tuple(c) not in codes for c in POOL.codes]))
    rows = learned.choose(without, 14, np.random.default_rng(0))
    assert len(set(rows.tolist())) == 14
    changed = (without.codes[rows[:10]] != learned.references.codes).sum(axis=1)
    random = (without.codes[:10] != learned.references.codes).sum(axis=1)
    assert changed.mean() < random.mean() - 1


def test_one_sample_ten_times_too_slow_leaves_the_ranks(learned):
    kept = []
    for number, kind in enumerate(NEW_KINDS):
        samples, device = chosen(learned), edges_device(0, kind)
        latency = device(samples)
        latency[3 + number] *= 10
        mean, std = learned.fit(samples, latency).predict(TEST)
        assert np.isfinite(mean).all()
        assert np.isfinite(std).all()
        kept.append(spearman(device(TEST), mean))
    assert np.mean(kept) > 0.75


def test_latencies_in_whole_milliseconds_do(learned):
    samples, device = chosen(learned), edges_device(0, 11)
    scale = 12.0 / np.median(device(TEST))
    exact, _ = learned.fit(samples, scale * device(samples)).predict(TEST)
    mean, std = learned.fit(samples, np.round(scale * device(samples))).predict(TEST)
    assert spearman(exact, mean) > 0.97
    assert np.median(np.abs(mean / exact - 1)) < 0.1
    assert (std > 0).all()


def test_gaps_in_the_tables_are_bridged():
    tables = edges_tables(POOL)
    rng = np.random.default_rng(0)
    gaps = {d: np.where(rng.random(250) < 0.4, np.nan, v) for d, v in tables.latencies.items()}
    predictor = HelpLatencyPredictor(edges_schema(), settings=SMALL)
    predictor.learn(LatencyTables(POOL, gaps, tables.families))
    samples = chosen(predictor)
    found = []
    for kind in NEW_KINDS:
        device = edges_device(0, kind)
        found.append(
            spearman(device(TEST), predictor.fit(samples, device(samples)).predict(TEST)[0])
        )
    assert np.mean(found) > 0.7


def test_with_four_families_one_is_held_out_to_select_the_state():
    """Its tables must not reach the training: other latencies there, the same network unless
    another state is selected; with one validation there is but one state to select."""
    quick = replace(SMALL, episodes=4)
    tables = edges_tables(POOL, kinds=(1, 2, 3), each=2)
    single = {"lonely": edges_device(0, 8)(POOL)}
    other = {"lonely": edges_device(0, 9)(POOL)}
    found = []
    for extra in (single, other):
        merged = LatencyTables(POOL, {**tables.latencies, **extra}, tables.families)
        predictor = HelpLatencyPredictor(edges_schema(), settings=quick).learn(merged)
        meta = predictor._learned()
        assert "lonely" not in meta.models.devices
        found.append(meta.learned.network["head2.weight"])
    assert torch.equal(*found)


@pytest.mark.parametrize("kind", [HelpLatencyPredictor, ScratchLatencyPredictor])
def test_a_saved_one_predicts_the_same(learned, kind, tmp_path):
    predictor = learned if kind is HelpLatencyPredictor else kind(edges_schema(), SMALL)
    samples = chosen(predictor)
    latency = edges_device(0, 12)(samples)
    expected = predictor.fit(samples, latency).predict(TEST)
    predictor.save(tmp_path / "it.safetensors")
    loaded = kind.load(tmp_path / "it.safetensors")
    for found, wanted in zip(loaded.predict(TEST), expected, strict=True):
        assert np.array_equal(found, wanted)
    if kind is HelpLatencyPredictor:
        again = loaded.fit(samples, latency).predict(TEST)[0]
        assert np.array_equal(again, expected[0])
        assert np.array_equal(chosen(loaded).codes, samples.codes)


def test_what_it_cannot_do_is_a_typed_error(learned):
    fresh = LATENCY_PREDICTORS.get("help")(edges_schema())
    with pytest.raises(NotFittedError, match="call learn first"):
        fresh.choose(POOL, 10, np.random.default_rng(0))
    with pytest.raises(NotFittedError, match="call learn first"):
        fresh.fit(POOL, edges_device(0, 11)(POOL))
    with pytest.raises(TooFewSamplesError, match="at least 5 references"):
        HelpLatencyPredictor(edges_schema(), references=4)
    with pytest.raises(TooFewSamplesError, match="a table of 8 different configs"):
        fresh.learn(edges_tables(POOL.take(np.arange(8))))


def test_predictors_are_imported_without_torch():
    code = "import sys, predictors; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
