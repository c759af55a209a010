from __future__ import annotations

import numpy as np

from spaces import SearchSpace, cost
from spaces.population import sample
from spaces.slot_features import _SlotTable


def _cost_row(layers):
    total = cost(layers)
    return np.array([total.macs, total.params, total.bytes, len(layers)], np.float64)


def test_slot_features_equal_layers_one_config_at_a_time(space):
    population = sample(space, 200, np.random.default_rng(3))
    vectorised = space.slot_features(population, _cost_row).sum(axis=1)
    for row, found in zip(population, vectorised, strict=True):
        assert np.array_equal(found, _cost_row(space.layer_specs(space.from_indices(row))))


def test_slot_features_without_a_dense_table_are_the_same(space, monkeypatch):
    population = sample(space, 50, np.random.default_rng(4))
    dense = space.slot_features(population, _cost_row)
    monkeypatch.setattr(_SlotTable, "_DENSE_LIMIT", 0)
    fresh = SearchSpace.from_json(space.to_json())
    assert np.array_equal(fresh.slot_features(population, _cost_row), dense)


def test_slot_features_of_every_form_equal_layers_one_config_at_a_time(elastic):
    population = sample(elastic, 60, np.random.default_rng(5))
    vectorised = elastic.slot_features(population, _cost_row).sum(axis=1)
    for row, found in zip(population, vectorised, strict=True):
        assert np.array_equal(found, _cost_row(elastic.layer_specs(elastic.from_indices(row))))
