"""Latency tables travel as Parquet: back and forth, from others, and not at all when wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from predictors.errors import InvalidTargetError, TableError
from search.errors import RecordConflictError, SearchError
from search.latency_import import Layout, export_table, import_table
from search.latency_parquet import METADATA
from search.latency_tables import list_tables, load_named, space_definition, space_key
from search.models import Source
from search.store import Store
from search.store_latencies import LatencyRecord, TableDevice
from spaces import UnknownNameError
from spaces.population import sample

NASBENCH = Path(__file__).parents[3] / "shared" / "latency" / "data" / "nasbench201"
LAYOUT = Layout(columns=("e*",), features=("macs",), ignore=("acc",), families={"gpu*": "gpu"})
FOREIGN = {
    "e0": ["conv", "skip", "conv", "pool"],
    "e1": ["skip", "skip", None, "conv"],
    "depth": [1, 2, 2, 3],
    "macs": [10, 20, 30, 40],
    "gpu1": [1.0, 2.0, 3.0, 4.0],
    "gpu2": [1.0, None, 3.5, 4.0],
    "phone": [5, 6, 7, 8],
    "acc": [0.1, 0.2, 0.3, 0.4],
    "note": ["a", "b", "c", "d"],
}


@pytest.fixture
def store(tmp_path):
    with Store(f"sqlite:///{tmp_path / 'store.db'}") as store:
        yield store


@pytest.fixture
def foreign(tmp_path):
    """Write the foreign table with some columns replaced."""

    def write(**changes):
        path = tmp_path / "others.parquet"
        pq.write_table(pa.table(FOREIGN | changes), path)
        return path

    return write


@pytest.fixture
def measured(store, space):
    """A table `digits` of a space, with gaps, a repeat and a failure."""
    devices = [TableDevice("a", "x", "Xeon"), TableDevice("b", "y"), TableDevice("none", "y")]
    store.latencies.open_table("digits", space_definition(space, "base"), space_key(space), devices)
    rows = sample(space, 5, np.random.default_rng(0))
    configs = {c.key: c.to_json() for c in map(space.from_indices, rows)}
    records = [LatencyRecord(key, "a", 1.1 + n, 1.2) for n, key in enumerate(configs)]
    keys = list(configs)
    records += [LatencyRecord(keys[2], "b", 0.3), LatencyRecord(keys[3], "b", None, error="x")]
    store.latencies.record("digits", configs, records)
    return store.latencies.read("digits")


def same(found, table):
    assert (found.definition, found.space_key) == (table.definition, table.space_key)
    assert list(found.configs.items()) == list(table.configs.items())
    pairs = zip(found.devices, table.devices, strict=True)
    assert all((a.name, a.family, a.hardware) == (b.name, b.family, b.hardware) for a, b in pairs)
    for kind in ("latencies", "repeats"):
        for device in table.devices:
            np.testing.assert_array_equal(
                getattr(found, kind)[device.name], getattr(table, kind)[device.name]
            )


def test_a_table_of_a_space_comes_back_equal(store, measured, tmp_path):
    export_table(store, "digits", tmp_path / "t.parquet")
    import_table(store, tmp_path / "t.parquet", "again")
    found = store.latencies.read("again")
    same(found, measured)
    assert {device.source for device in found.devices} == {Source.IMPORTED}
    with Store(f"sqlite:///{tmp_path / 'other.db'}") as other:
        import_table(other, tmp_path / "t.parquet")
        same(other.latencies.read("digits"), measured)


def test_the_file_can_be_read_by_others(store, measured, space, tmp_path):
    export_table(store, "digits", tmp_path / "t.parquet")
    data = pq.read_table(tmp_path / "t.parquet").to_pydict()
    assert data["latency_ms/a"] == [1.1, 2.1, 3.1, 4.1, 5.1]
    assert data["latency_ms/b"] == [None, None, 0.3, None, None]
    for row, values in enumerate(measured.configs.values()):
        config = space.config(values)
        active = dict(zip(space.names, space.active(config.indices[None])[0], strict=True))
        for name, there in active.items():
            assert data[name][row] == (values[name] if there else None)
    assert any(None in data[name] for name in space.names)


def test_a_table_of_others(store, foreign, tmp_path):
    path = foreign()
    import_table(store, path, layout=LAYOUT)
    tables = load_named(store, "others")
    assert tables.devices == ("depth", "gpu1", "gpu2", "phone"), "every other numeric column"
    assert tables.families == {"depth": "depth", "gpu1": "gpu", "gpu2": "gpu", "phone": "phone"}
    layout = Layout(("e?", "depth"), ("macs",), devices=("gpu*", "phone"))
    import_table(store, path, "named", layout)
    tables = load_named(store, "named")
    assert tables.devices == ("gpu1", "gpu2", "phone")
    np.testing.assert_array_equal(tables.latencies["gpu2"], [1.0, np.nan, 3.5, 4.0])
    columns = {c.name: (c.choices, c.group) for c in tables.configs.schema.columns}
    assert columns == {
        "e0": (("conv", "pool", "skip"), "e"),
        "e1": (("conv", "skip"), "e"),
        "depth": ((1, 2, 3), "depth"),
    }
    assert tables.configs.codes.tolist() == [[0, 1, 0], [2, 1, 1], [0, -1, 1], [1, 0, 2]]
    assert tables.configs.amounts.ravel().tolist() == [10, 20, 30, 40]
    assert tables.configs.schema.amounts[0].nominal_ms == pytest.approx(1 / 25)
    export_table(store, "named", tmp_path / "t.parquet")
    import_table(store, tmp_path / "t.parquet", "again")
    same(store.latencies.read("again"), store.latencies.read("named"))


@pytest.mark.parametrize(
    ("changes", "layout", "error", "message"),
    [
        ({}, Layout(), TableError, "say which of its columns .* e0, e1, depth"),
        ({}, Layout(("x*",)), UnknownNameError, r"unknown column 'x\*'.*Known: acc"),
        ({}, Layout(("e*", "depth"), ("d*",)), TableError, "'depth' cannot be both choice and"),
        ({}, Layout(("macs",), families={"tpu": "x"}), UnknownNameError, "unknown device 'tpu'"),
        ({}, Layout(("e*", "acc")), TableError, "'acc' holds double; a choice is an integer or"),
        ({}, Layout(("e*",), ("note",)), TableError, "'note' holds string; expected numbers"),
        ({}, Layout(("e*",), devices=("note",)), TableError, "'note' holds string"),
        ({}, Layout(("e*",), ignore=("[!e]*",)), TableError, "no numeric column is left"),
        ({"gpu1": [1.0, 2.0, 0.0, 4.0]}, LAYOUT, InvalidTargetError, "'gpu1', row 2: 0.0 ms"),
        ({"gpu1": [1.0, 2.0, -3.0, 4.0]}, LAYOUT, InvalidTargetError, "row 2: -3.0 ms"),
        ({"gpu1": [1.0, np.nan, 3.0, 4.0]}, LAYOUT, InvalidTargetError, "row 1: nan ms.*null"),
        ({"gpu1": [1.0, 2.0, np.inf, 4.0]}, LAYOUT, InvalidTargetError, "row 2: inf ms"),
        ({"gpu1": [3.0] * 4}, LAYOUT, InvalidTargetError, "all 4 latencies are 3.0 ms"),
        ({"gpu1": [None, 1.0, None, None]}, LAYOUT, InvalidTargetError, "all 1 latencies"),
        ({"gpu1": pa.nulls(4, pa.float64())}, LAYOUT, InvalidTargetError, "no latency at all"),
        ({"macs": [1, 2, 3, -9]}, LAYOUT, TableError, "macs"),
        ({"macs": [1, 2, None, 4]}, LAYOUT, TableError, "macs"),
        ({"e1": ["skip", "skip", "skip", "conv"]}, LAYOUT, TableError, "rows 0 and 2 hold the"),
        ({"e0": pa.nulls(4, pa.string())}, LAYOUT, TableError, "choices of column 'e0'"),
    ],
)
def test_wrong_tables_are_refused_whole(store, foreign, changes, layout, error, message):
    with pytest.raises(error, match=message):
        import_table(store, foreign(**changes), layout=layout)
    assert store.latencies.tables() == []


def test_names_that_are_taken_or_not_allowed(store, foreign):
    path = foreign()
    import_table(store, path, "mine", LAYOUT)
    with pytest.raises(RecordConflictError, match="'mine' exists"):
        import_table(store, path, "mine", LAYOUT)
    for name in ("../x", "a b", "-", "x" * 65):
        with pytest.raises(TableError, match="no name of a latency table"):
            import_table(store, path, name, LAYOUT)
    assert [table.name for table in list_tables(store)] == ["mine"]


def test_files_that_cannot_be_read(store, tmp_path, foreign):
    with pytest.raises(SearchError, match=r"cannot read .*none\.parquet"):
        import_table(store, tmp_path / "none.parquet")
    path = foreign()
    whole = path.read_bytes()
    damaged = {"empty": b"", "text": b"no parquet" * 99, "cut": whole[:-20]}
    damaged["flipped"] = whole[:-60] + bytes(b ^ 0xFF for b in whole[-60:-8]) + whole[-8:]
    for content in damaged.values():
        path.write_bytes(content)
        with pytest.raises(TableError, match="damaged, or no Parquet file"):
            import_table(store, path, layout=LAYOUT)
    import_table(store, foreign(), "t", LAYOUT)
    with pytest.raises(SearchError, match="cannot write"):
        export_table(store, "t", Path("/proc/none/t.parquet"))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda d: d | {"format": 2}, TableError, "format 2; known here: 1"),
        (lambda d: {}, TableError, "damaged"),
        (lambda d: [], TableError, "damaged"),
        (lambda d: d | {"definition": {"schema": 1}}, TableError, "damaged|not the schema"),
        (lambda d: d | {"devices": [*d["devices"], {"name": "c"}]}, TableError, "damaged"),
        (lambda d: d | {"devices": d["devices"] * 2}, TableError, "names a device twice"),
        (
            lambda d: d | {"devices": [{"name": "c", "family": "c", "hardware": ""}]},
            TableError,
            "no column 'latency_ms/c'",
        ),
    ],
)
def test_damaged_descriptions_are_refused(store, measured, tmp_path, change, error, message):
    path = tmp_path / "t.parquet"
    export_table(store, "digits", path)
    data = pq.read_table(path)
    described = json.loads(data.schema.metadata[METADATA])
    pq.write_table(data.replace_schema_metadata({METADATA: json.dumps(change(described))}), path)
    with pytest.raises(error, match=message):
        import_table(store, path, "again")
    assert [row.name for row in store.latencies.tables()] == ["digits"]


def test_configs_of_another_space_are_refused(store, measured, tmp_path):
    path = tmp_path / "t.parquet"
    export_table(store, "digits", path)
    data = pq.read_table(path)
    at = data.column_names.index("resolution")
    wrong = data.set_column(at, "resolution", pa.array([20, 24, 28, 32, 33]))
    pq.write_table(wrong, path)
    with pytest.raises(TableError, match="resolution = 33 is not allowed"):
        import_table(store, path, "again")
    with pytest.raises(TableError, match="says itself what its columns are"):
        import_table(store, path, "again", Layout(("resolution",)))
    pq.write_table(pa.concat_tables([data, data.slice(0, 1)]), path)
    with pytest.raises(TableError, match="rows 0 and 5 hold the same config"):
        import_table(store, path, "again")


def test_nasbench(store):
    if not NASBENCH.exists():
        pytest.skip("the table of NAS-Bench-201 is not here")
    layout = Layout(("e[0-9]",), ("feat_*",), ignore=("acc_*",), families={"1080ti*": "1080ti"})
    import_table(store, NASBENCH / "data.parquet", "nb201", layout)
    found = load_named(store, "nb201")
    assert (len(found.configs), len(found.devices)) == (15625, 13)
    assert found.members("1080ti") == ("1080ti_1", "1080ti_32", "1080ti_256")
    assert {column.group for column in found.configs.schema.columns} == {"e"}
