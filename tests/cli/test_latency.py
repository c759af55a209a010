from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.predictors.latency.on_tables import OPS, edges_tables, random_edges

TABLE = {
    "e0": ["conv", "skip", "conv"],
    "e1": ["skip", "skip", "conv"],
    "macs": [10, 20, 30],
    "gpu_1": [1.0, 2.0, 3.0],
    "gpu_8": [4.0, 5.0, 7.0],
    "phone": [5.0, 6.0, None],
    "acc": [0.1, 0.2, 0.3],
}
LAYOUT = ("--columns", "e*", "--features", "macs", "--ignore", "acc", "--family", "gpu_*=gpu")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "others.parquet"
    pq.write_table(pa.table(TABLE), path)
    return path


def test_import_list_export(netcarve, file, tmp_path):
    assert "netcarve device pool build" in netcarve("latency", "list").stdout
    done = netcarve("latency", "import", file, *LAYOUT)
    assert done.stdout.startswith("others: 3 configs on 3 devices.\n")
    (table,) = json.loads(netcarve("latency", "list", "--json").stdout)
    assert (table["name"], table["space"], table["configs"]) == ("others", None, 3)
    found = {d["name"]: (d["family"], d["latencies"], d["source"]) for d in table["devices"]}
    assert found == {
        "gpu_1": ("gpu", 3, "imported"),
        "gpu_8": ("gpu", 3, "imported"),
        "phone": ("phone", 2, "imported"),
    }
    rows = netcarve("latency", "list").stdout.splitlines()[2:]
    assert [row.split()[0] for row in rows] == ["others"] * 3
    out = tmp_path / "out.parquet"
    done = json.loads(netcarve("latency", "export", "others", out, "--json").stdout)
    assert done == {"file": str(out), "configs": 3, "devices": ["gpu_1", "gpu_8", "phone"]}
    again = json.loads(netcarve("latency", "import", out, "--name", "again", "--json").stdout)
    families = [{"name": n, "family": f} for n, (f, _, _) in found.items()]
    assert again == {"table": "again", "configs": 3, "devices": families}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "none", "t.parquet"], "unknown latency table 'none'"),
        (["import", "/no/such/file"], "cannot read '/no/such/file'"),
        (["import", __file__], "damaged, or no Parquet file"),
        (["import", "FILE"], "say which of its columns"),
        (["import", "FILE", *LAYOUT, "--family", "gpu"], "'gpu': not DEVICE=FAMILY"),
        (["import", "FILE", *LAYOUT, "--family", "tpu=x"], "unknown device 'tpu'"),
        (["import", "FILE", *LAYOUT, "--devices", "g*", "--devices", "e0"], "cannot be both"),
        (["import", "FILE", *LAYOUT, "--name", "a/b"], "no name of a latency table"),
        (["import", "FILE", *LAYOUT, "--name", "taken"], "'taken' exists"),
    ],
)
def test_mistakes_end_with_2_and_import_nothing(netcarve, file, arguments, message):
    assert netcarve("latency", "import", file, *LAYOUT, "--name", "taken").exit_code == 0
    done = netcarve("latency", *(file if word == "FILE" else word for word in arguments))
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(json.loads(netcarve("latency", "list", "--json").stdout)) == 1


def test_names_of_tables_are_completed(netcarve, file, home):
    from search.names import known_names

    assert known_names("latency table", home) == []
    netcarve("latency", "import", file, *LAYOUT)
    assert known_names("latency table", home) == ["others"]


@pytest.fixture
def edges(netcarve, tmp_path):
    """An imported table of made-up devices of three families."""
    configs = random_edges(90, 0)
    table = edges_tables(configs, each=1)
    columns = {f"e{n}": [OPS[code] for code in configs.codes[:, n]] for n in range(6)}
    amounts = {"feat_macs": configs.amounts[:, 0]}
    path = tmp_path / "edges.parquet"
    pq.write_table(pa.table(columns | amounts | dict(table.latencies)), path)
    layout = ("--columns", "e[0-9]", "--features", "feat_macs")
    assert netcarve("latency", "import", path, *layout).exit_code == 0
    return table


def test_eval_leaves_families_out_and_ranks_what_it_has_not_seen(netcarve, edges):
    names = ("--predictor", "adaptive", "--predictor", "macs", "--seeds", "2", "--json", "-q")
    done = json.loads(netcarve("latency", "eval", "--table", "edges", *names).stdout)
    assert (done["table"], done["n"]) == ("edges", 10)
    found = {(s["predictor"], s["device"]): s for s in done["scores"]}
    assert set(found) == {(p, d) for p in ("adaptive", "macs") for d in edges.devices}
    for device in edges.devices:
        own = found["adaptive", device]
        assert own["spearman"] > found["macs", device]["spearman"]
        assert own["kendall"] < own["spearman"]
        assert own["ceiling"] is None
    one = netcarve("latency", "eval", "--table", "edges", "--device", "device2-0", "--n", "5", "-q")
    (row,) = [line for line in one.stdout.splitlines() if "adaptive" in line]
    assert row.split()[:3] == ["device2-0", "device2-0", "adaptive"]
    assert "-" in row.split()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--space NAME or --table NAME"),
        (["--table", "none"], "unknown latency table 'none'"),
        (["--space", "mobilenetv3_digits"], "netcarve device pool build"),
        (["--table", "edges", "--device", "device9"], "unknown device of the table 'device9'"),
        (["--table", "edges", "--predictor", "adaptiv"], "Did you mean 'adaptive'"),
        (["--table", "edges", "--n", "80"], "80 and 2 are needed"),
    ],
)
def test_mistakes_of_eval_end_with_2(netcarve, edges, arguments, message):
    done = netcarve("latency", "eval", *arguments, "-q")
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
