from __future__ import annotations

import json

import numpy as np
import pytest

from predictors.latency import SpaceEncoding
from search.latency_tables import load_tables
from search.workspace import open_store
from spaces import get_space

SPACE = "mobilenetv3_digits"
BUILD = ("device", "pool", "build", "--space", SPACE)
DEVICES = ("torch-t1-b1", "onnxruntime-t1-b8")


def test_the_default_pool_is_listed(netcarve):
    found = json.loads(netcarve("device", "pool", "list", "--json").stdout)
    lines = netcarve("device", "pool", "list").stdout.splitlines()[2:]
    assert [line.split()[0] for line in lines] == [device["name"] for device in found]
    assert {"torch", "onnxruntime"} <= {device["family"] for device in found}
    assert set(DEVICES) <= {device["name"] for device in found if device["available"]}


@pytest.mark.slow
def test_a_table_is_measured_and_travels(netcarve, home, tmp_path):
    options = ["--configs", 3, "--repeats", 1, "--processes", 1]
    options += [word for name in DEVICES for word in ("--devices", name)]
    done = netcarve(*BUILD, *options, "--json")
    report = json.loads(done.stdout)
    assert (report["measured"], report["repeated"], report["failed"]) == (6, 6, 0), report
    assert report["complete"]
    assert f"latencies of {SPACE}: 0/6" in done.stderr
    again = netcarve(*BUILD, *options, "-q")
    assert (again.exit_code, again.stderr) == (0, "")
    assert "0 measured, 6 known before" in again.stdout

    (table,) = json.loads(netcarve("latency", "list", "--json").stdout)
    assert (table["name"], table["space"], table["configs"]) == (SPACE, SPACE, 3)
    assert [(d["name"], d["family"], d["latencies"]) for d in table["devices"]] == [
        ("torch-t1-b1", "torch", 3),
        ("onnxruntime-t1-b8", "onnxruntime", 3),
    ]
    assert all(d["hardware"] and d["source"] == "measured" for d in table["devices"])
    file = tmp_path / "table.parquet"
    told = netcarve("latency", "export", SPACE, file).stdout
    assert told == f"{file}: 3 configs on 2 devices.\n"
    assert netcarve("latency", "import", file, "--name", "copy").exit_code == 0
    space = get_space(SPACE).restrict(choices={"*.w_bits": (32,)})
    with open_store(home) as store:
        stored, copy = store.latencies.read(SPACE), store.latencies.read("copy")
        tables = load_tables(store, space, SpaceEncoding(space))
    assert tables.devices == (*DEVICES, *(f"copy/{name}" for name in DEVICES))
    assert len(tables.configs) == 3
    for name in DEVICES:
        np.testing.assert_array_equal(copy.latencies[name], stored.latencies[name])
        ratio = stored.repeats[name] / stored.latencies[name]
        assert ((ratio > 0.05) & (ratio < 20)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--space", "digits"], "unknown space 'digits'"),
        (["--space", SPACE, "--devices", "torch-t1-b3"], "Did you mean 'torch-t1-b"),
        (["--space", SPACE, "--configs", "0"], "--configs"),
        (["--space", SPACE, "--repeats", "1.5"], "--repeats"),
        (["--space", SPACE, "--minutes", "-1"], "--minutes"),
        ([], "--space"),
    ],
)
def test_mistakes_end_with_2(netcarve, arguments, message):
    done = netcarve("device", "pool", "build", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert json.loads(netcarve("latency", "list", "--json").stdout) == []
