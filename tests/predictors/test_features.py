from __future__ import annotations

import time

import numpy as np

from predictors.features import (
    FEATURES,
    TERMS,
    Feature,
    cost_features,
    layer_features,
    totals,
)
from spaces import cost, get_space, layer_cost
from spaces.layer_spec import LayerSpec, Operator
from spaces.population import sample


def test_features_equal_the_sum_over_each_configs_layers(space):
    population = sample(space, 20, np.random.default_rng(0))
    features = cost_features(space, population)
    assert features.shape == (20, len(FEATURES))
    for row, genes in zip(features, population, strict=True):
        specs = space.layer_specs(space.from_indices(genes))
        assert np.array_equal(row, sum(layer_features((spec,)) for spec in specs))


def test_attention_is_counted_in_floats():
    space = get_space("elasticvit_digits")
    specs = space.layer_specs(space.max_config())
    row = layer_features(specs)
    attentions = [spec for spec in specs if spec.operator is Operator.ATTENTION]
    found = row[FEATURES.index(Feature("macs", "attention", "float"))]
    assert found == sum(layer_cost(spec).macs for spec in attentions) > 0
    assert row[FEATURES.index(Feature("layers", "attention", "float"))] == len(attentions)


def test_layer_norm_is_a_group_of_its_own():
    norm = LayerSpec("n", Operator.LAYER_NORM, 48, 48, 4, 4)
    row = layer_features((norm,))
    found = {tuple(f): amount for f, amount in zip(FEATURES, row, strict=True) if amount}
    values = 4 * 4 * 48
    amounts = {
        "weight_bytes": 4 * 2 * 48, "input_bytes": 4 * values, "output_values": values, "layers": 1
    }  # fmt: skip
    assert found == {(term, "layer_norm", "float"): amount for term, amount in amounts.items()}


def test_totals_equal_the_exact_cost(space):
    population = sample(space, 20, np.random.default_rng(1))
    exact = [cost(space.layer_specs(space.from_indices(row))) for row in population]
    log_macs, log_bytes, log_layers, share = totals(cost_features(space, population)).T
    assert np.allclose(np.exp(log_macs), [c.macs for c in exact], rtol=1e-12)
    assert np.allclose(np.exp(log_bytes), [c.bytes for c in exact], rtol=1e-12)
    layers = [len(space.layer_specs(space.from_indices(row))) for row in population]
    assert np.allclose(np.exp(log_layers), layers)
    assert ((share >= 0) & (share <= 1)).all()


def test_pooling_counts_what_it_reads_and_writes():
    pool = LayerSpec("stem_pool", Operator.MAX_POOL, 16, 16, 8, 4, 3, 2)
    row = layer_features((pool,))
    found = {tuple(f): amount for f, amount in zip(FEATURES, row, strict=True) if amount}
    amounts = {"input_bytes": 4 * 8 * 8 * 16, "output_values": 4 * 4 * 16, "layers": 1}
    assert found == {(term, "pool", "float"): amount for term, amount in amounts.items()}


def test_squeeze_excite_before_an_integer_projection_computes_in_floats(space):
    def of_excite(term, precision, row):
        return row[FEATURES.index(Feature(term, "squeeze_excite", precision))]

    bits = [name for name in space.names if name.endswith("w_bits")]
    rows = {}
    for width in (8, 32):
        some = space.restrict(choices=dict.fromkeys(bits, (width,)))
        excites = [
            spec
            for spec in some.layer_specs(some.max_config())
            if spec.operator is Operator.SQUEEZE_EXCITE
        ]
        assert excites
        assert all((spec.precision.activation is not None) == (width == 8) for spec in excites)
        rows[width] = layer_features(tuple(excites))
        for term in TERMS:
            assert of_excite(term, "integer", rows[width]) == 0
            assert of_excite(term, "float", rows[width]) > 0
    low, high = (of_excite("input_bytes", "float", rows[width]) for width in (8, 32))
    assert high == 4 * low
    for term in ("macs", "output_values", "layers"):
        assert of_excite(term, "float", rows[8]) == of_excite(term, "float", rows[32])


def test_integer_share_follows_the_bits(space):
    bits = [name for name in space.names if name.endswith("w_bits")]
    low = space.restrict(choices=dict.fromkeys(bits, (8,)))
    high = space.restrict(choices=dict.fromkeys(bits, (32,)))
    integer = totals(cost_features(low, low.max_config().indices[None]))[0, 3]
    floating = totals(cost_features(high, high.max_config().indices[None]))[0, 3]
    assert floating == 0.0
    assert integer > 0.9


def test_a_hundred_thousand_configs_take_seconds(space):
    population = sample(space, 100_000, np.random.default_rng(2))
    cost_features(space, population)
    start = time.process_time()
    cost_features(space, population)
    assert time.process_time() - start < 8
