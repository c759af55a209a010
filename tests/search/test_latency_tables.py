"""What predictors are told of stored tables: a space's restrictions share them."""

from __future__ import annotations

import numpy as np
import pytest

from predictors.errors import TableError
from predictors.latency import Column, ConfigSchema, SpaceEncoding
from search.latency_tables import (
    load_named,
    load_tables,
    schema_configs,
    space_definition,
    space_key,
)
from search.store import Store
from search.store_latencies import LatencyRecord, TableDevice
from spaces import SearchSpace
from spaces.families import MobileNetV3
from spaces.population import sample


@pytest.fixture
def store(tmp_path):
    with Store(f"sqlite:///{tmp_path / 'store.db'}") as store:
        yield store


def record(store, table, space, latencies):
    """Device -> {config: ms}; the family is the name up to its dash."""
    devices = [TableDevice(name, name.partition("-")[0]) for name in latencies]
    store.latencies.open_table(table, space_definition(space, "base"), space_key(space), devices)
    for name, known in latencies.items():
        records = [LatencyRecord(config.key, name, ms) for config, ms in known.items()]
        configs = {config.key: config.to_json() for config in known}
        store.latencies.record(table, configs, records)


def configs(space, count):
    return [space.from_indices(row) for row in sample(space, count, np.random.default_rng(0))]


def test_a_restriction_finds_the_rows_inside_it(store, space):
    small = space.restrict(choices={"resolution": (20, 24)})
    chosen = configs(space, 12)
    record(store, "t", space, {"a-1": dict(zip(chosen, range(1, 13), strict=True))})
    encoding = SpaceEncoding(small)
    found = load_tables(store, small, encoding)
    inside = [(c, ms) for ms, c in enumerate(chosen, 1) if c["resolution"] in (20, 24)]
    assert 2 <= len(inside) < 12
    rows = np.stack([small.config(c).indices for c, _ in inside])
    np.testing.assert_array_equal(found.configs.codes, encoding(rows).codes)
    np.testing.assert_array_equal(found.configs.amounts, encoding(rows).amounts)
    assert found.latencies["a-1"].tolist() == [ms for _, ms in inside]
    assert len(load_tables(store, space, SpaceEncoding(space)).configs) == 12


def test_another_space_finds_nothing(store, space):
    record(store, "t", space, {"a-1": dict(zip(configs(space, 3), (1, 2, 3), strict=True))})
    settings = space.family.settings.model_copy(update={"classes": 12})
    other = SearchSpace(space.name, MobileNetV3(settings))
    assert load_tables(store, other, SpaceEncoding(other)) is None
    assert space_key(space.restrict(choices={"resolution": (20,)})) == space_key(space)
    assert space_key(other) != space_key(space)


def test_tables_of_a_space_are_joined_and_devices_left_out(store, space):
    a, b, c, d = configs(space, 4)
    record(store, "t", space, {"a-1": {a: 1, b: 2}, "a-2": {b: 3, c: 4}, "one-1": {a: 1}})
    record(store, "u", space, {"a-1": {c: 5, d: 6}, "same-1": {a: 7, b: 7}})
    encoding = SpaceEncoding(space)
    found = load_tables(store, space, encoding)
    assert found.devices == ("a-1", "a-2", "u/a-1"), "without those whose latencies do not differ"
    assert found.families == dict.fromkeys(found.devices, "a")
    nan = float("nan")
    expected = {"a-1": [1, 2, nan, nan], "a-2": [nan, 3, 4, nan], "u/a-1": [nan, nan, 5, 6]}
    for device, values in expected.items():
        np.testing.assert_array_equal(found.latencies[device], values)
    assert load_tables(store, space, encoding, exclude=("a-1",)).devices == ("a-2",)
    assert load_tables(store, space, encoding, exclude=("a-1", "a-2")) is None


def test_a_table_of_a_space_by_name(store, space):
    a, b = configs(space, 2)
    record(store, "t", space.restrict(choices={"*.se": (0, 1)}), {"a-1": {a: 1, b: 2}, "b-1": {}})
    found = load_named(store, "t")
    assert found.devices == ("a-1",)
    full = SpaceEncoding(SearchSpace("base", space.family))
    rows = np.stack([a.indices, b.indices])
    assert found.configs.schema.key == full.schema.key
    np.testing.assert_array_equal(found.configs.codes, full(rows).codes)


def test_rows_of_a_schema_become_codes():
    schema = ConfigSchema((Column("a", (3, 5), "a"), Column("b", ("x", "y"), "b")))
    found = schema_configs(schema, [{"a": 5, "b": "x"}, {"a": None, "b": "y"}])
    assert found.codes.tolist() == [[1, 0], [-1, 1]]
    assert found.amounts.shape == (2, 0)
    assert len(schema_configs(schema, [])) == 0
    with pytest.raises(TableError, match=r"config 1: a is 4; allowed: \(3, 5\)"):
        schema_configs(schema, [{"a": 3, "b": "x"}, {"a": 4, "b": "y"}])
