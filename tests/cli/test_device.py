from __future__ import annotations

import json

import pytest

from compilers.targets import host_isas


def test_add_list_show_probe(netcarve):
    isa = host_isas()[-1]
    added = json.loads(netcarve("device", "add", "cpu", "--isa", isa, "--json").stdout)
    assert added["capabilities"]["isa"] == isa
    assert json.loads(netcarve("device", "list", "--json").stdout) == [added]
    assert json.loads(netcarve("device", "show", "cpu", "--json").stdout) == added
    assert json.loads(netcarve("device", "probe", "cpu", "--json").stdout) == added
    row = netcarve("device", "list").stdout.splitlines()[2]
    assert row.split()[:5] == ["cpu", "local_cpu", isa, "1", "1"]
    assert "fp32, w8a8" in netcarve("device", "show", "cpu").stdout


def test_none_yet(netcarve):
    assert "netcarve device add NAME" in netcarve("device", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "cpy"], "unknown device 'cpy'. Did you mean 'cpu'? Known: cpu."),
        (["probe", "other"], "unknown device 'other'"),
        (["add", "cpu", "--isa", host_isas()[-1]], "exists with another configuration"),
        (["add", "new", "--isa", "sse"], "'sse'"),
        (["add", "new", "--kind", "gpu"], "Known: local_cpu"),
        (["add", "new", "--threads", "0"], "threads"),
        (["add", "a b"], "name: "),
        (["list", "--db", "mysql://host/x"], "Allowed: sqlite:///FILE"),
        (["list", "--db", "sqlite:////no/such/folder/x.db"], "/no/such/folder"),
    ],
)
def test_mistakes_end_with_2_and_change_nothing(netcarve, arguments, message):
    netcarve("device", "add", "cpu")
    before = netcarve("device", "list", "--json").stdout
    done = netcarve("device", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert netcarve("device", "list", "--json").stdout == before


def test_replace(netcarve):
    netcarve("device", "add", "cpu")
    done = netcarve("device", "add", "cpu", "--isa", host_isas()[-1], "--replace")
    assert done.exit_code == 0
    assert host_isas()[-1] in netcarve("device", "show", "cpu").stdout
