"""Latency tables in the store."""

from __future__ import annotations

import numpy as np
import pytest

from search.errors import RecordConflictError
from search.models import Source
from search.store import Store
from search.store_latencies import LatencyRecord, StoredTable, TableDevice
from spaces.errors import UnknownNameError

CPU, GPU = TableDevice("cpu", "tvm", "Xeon"), TableDevice("gpu", "cuda", "H200")
CONFIGS = {"k0": {"a": 1}, "k1": {"a": 2}, "k2": {"a": 3}}


def opened(store: Store) -> None:
    store.latencies.open_table("t", {"space": {"name": "s"}}, "key", [CPU, GPU])


def test_pairs_are_recorded_once_and_failures_give_way(store: Store) -> None:
    opened(store)
    latencies = store.latencies
    first = [
        LatencyRecord("k0", "cpu", 1.5, 1.6),
        LatencyRecord("k0", "gpu", None, error="crashed"),
        LatencyRecord("k1", "cpu", 2.5),
    ]
    latencies.record("t", CONFIGS, first)
    later = [LatencyRecord("k0", "cpu", 9.0), LatencyRecord("k0", "gpu", 0.5)]
    later.append(LatencyRecord("k1", "cpu", None, error="crashed"))
    latencies.record("t", {"k0": {"a": 9}, "k1": {"a": 2}}, later)
    table = latencies.read("t")
    assert table.configs == CONFIGS, "the first values stay, in their order"
    assert table.latencies["cpu"].tolist()[:2] == [1.5, 2.5]
    assert table.repeats["cpu"][0] == 1.6
    assert np.isnan(table.repeats["cpu"][1:]).all()
    assert table.latencies["gpu"][0] == 0.5
    assert table.failures == {}
    assert (table.devices, table.space_key) == ((CPU, GPU), "key")
    latencies.record("t", CONFIGS, [LatencyRecord("k2", "gpu", None, error="hangs")])
    assert latencies.read("t").failures == {("k2", "gpu"): "hangs"}
    count, devices = latencies.counts("t")
    assert count == 3
    assert [(d.device, d.latencies, d.repeats, d.failures) for d in devices] == [
        (CPU, 2, 1, 0),
        (GPU, 1, 0, 1),
    ]


def test_a_table_belongs_to_one_space_and_a_name_in_it_to_one_device(store: Store) -> None:
    opened(store)
    opened(store)
    with pytest.raises(RecordConflictError, match="'t' exists and is of another space"):
        store.latencies.open_table("t", {"space": {"name": "s"}}, "other", [CPU])
    other = TableDevice("gpu", "cuda", "T4")
    new = TableDevice("new", "tvm", "Xeon")
    with pytest.raises(RecordConflictError, match=r"'gpu' .* another one: .*H200; .*T4"):
        store.latencies.open_table("t", {"space": {"name": "s"}}, "key", [new, other])
    assert store.latencies.read("t").devices == (CPU, GPU)
    store.latencies.open_table("u", {"space": {"name": "s"}}, "key", [other])
    assert store.latencies.of_space("key") == ["t", "u"]
    assert store.latencies.of_space("none") == []
    with pytest.raises(UnknownNameError, match=r"unknown latency table 'v'.*Known: t, u"):
        store.latencies.read("v")
    with pytest.raises(UnknownNameError, match="unknown latency table 'v'"):
        store.latencies.counts("v")


def test_a_whole_table_is_added_once(store: Store) -> None:
    table = StoredTable(
        "imported",
        {"schema": {}},
        None,
        (TableDevice("phone", "arm", "", Source.IMPORTED),),
        CONFIGS,
        {"phone": np.array([1.0, np.nan, 3.0])},
        {"phone": np.array([np.nan, np.nan, 3.5])},
    )
    store.latencies.add_table(table)
    found = store.latencies.read("imported")
    assert (found.devices, found.configs) == (table.devices, table.configs)
    np.testing.assert_array_equal(found.latencies["phone"], table.latencies["phone"])
    np.testing.assert_array_equal(found.repeats["phone"], table.repeats["phone"])
    with pytest.raises(RecordConflictError, match="'imported' exists"):
        store.latencies.add_table(table)
    assert [row.name for row in store.latencies.tables()] == ["imported"]
