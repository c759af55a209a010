from __future__ import annotations

import json

import pytest

from cli.device import _serving
from compilers.cuda_driver import find_gpus
from compilers.errors import DeviceError
from compilers.targets import host_isas
from spaces import PRECISIONS
from tests.compilers.rpc_board import Board, free_port


def test_add_list_show_probe(netcarve):
    isa = host_isas()[-1]
    added = json.loads(netcarve("device", "add", "cpu", "--isa", isa, "--json").stdout)
    assert added["capabilities"]["isa"] == isa
    assert json.loads(netcarve("device", "list", "--json").stdout) == [added]
    assert json.loads(netcarve("device", "show", "cpu", "--json").stdout) == added
    assert json.loads(netcarve("device", "probe", "cpu", "--json").stdout) == added
    row = netcarve("device", "list").stdout.splitlines()[2]
    assert row.split()[:5] == ["cpu", "local_cpu", isa, "1", "1"]
    assert "fp32, w2a8, w3a8" in netcarve("device", "show", "cpu").stdout


def test_none_yet(netcarve):
    assert "netcarve device add NAME" in netcarve("device", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "cpy"], "unknown device 'cpy'. Did you mean 'cpu'? Known: cpu."),
        (["probe", "other"], "unknown device 'other'"),
        (["add", "cpu", "--isa", host_isas()[-1]], "exists with another configuration"),
        (["add", "new", "--isa", "sse"], "'sse'"),
        (["add", "new", "--kind", "gpu"], "local_cpu, "),
        (["add", "new", "--threads", "0"], "threads"),
        (["add", "new", "--set", "port=9190"], "unknown key 'port'"),
        (["add", "new", "--kind", "tvm_rpc", "--set", "prot=1"], "Did you mean 'port'?"),
        (["add", "new", "--set", "isa=avx2"], "given twice"),
        (["add", "new", "--set", "port"], "not KEY=VALUE"),
        (["serve", "--port", "0", "--threads", "0"], "threads is 0; allowed: 1 to"),
        (["serve", "--tracker", "board"], "address 'board'; allowed: HOST:PORT"),
        (["serve", "--host", "203.0.113.1"], "cannot listen at 203.0.113.1:9190: "),
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


def test_a_gpu_that_is_not_here(netcarve):
    try:
        find_gpus()
    except DeviceError as error:
        missing = str(error)
    else:
        pytest.skip("a GPU is here")
    done = netcarve("device", "add", "gpu", "--kind", "cuda")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [f"error: device gpu: {missing}"]
    assert "NVIDIA driver" in missing
    assert netcarve("device", "list", "--json").stdout.strip() == "[]"


def test_replace(netcarve):
    netcarve("device", "add", "cpu")
    done = netcarve("device", "add", "cpu", "--isa", host_isas()[-1], "--replace")
    assert done.exit_code == 0
    assert host_isas()[-1] in netcarve("device", "show", "cpu").stdout


@pytest.mark.slow
def test_a_device_behind_a_server(netcarve, tmp_path):
    isa = host_isas()[-1]
    with Board(tmp_path) as board:
        address = f"127.0.0.1:{board.port}"
        assert address in board.said
        taken = netcarve("device", "serve", "--port", board.port)
        assert taken.exit_code == 2
        assert f"cannot listen at {address}: Address already in use" in taken.stderr
        arguments = ["--kind", "tvm_rpc", "--isa", isa, "--set", f"port={board.port}"]
        added = json.loads(netcarve("device", "add", "board", *arguments, "--json").stdout)
    assert (added["config"]["kind"], added["config"]["port"]) == ("tvm_rpc", board.port)
    assert added["capabilities"]["isa"] == isa
    assert added["capabilities"]["schemes"] == sorted(PRECISIONS)
    done = netcarve("device", "probe", "board")
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"no session on the server at {address}: Connection refused" in done.stderr
    assert json.loads(netcarve("device", "show", "board", "--json").stdout) == added


def test_nobody_listens(netcarve):
    port = free_port()
    done = netcarve("device", "add", "board", "--kind", "tvm_rpc", "--set", f"port={port}")
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"127.0.0.1:{port}: Connection refused; start a server there" in done.stderr
    assert json.loads(netcarve("device", "list", "--json").stdout) == []


def test_a_server_that_others_can_reach_says_so(capsys):
    _serving("127.0.0.1:9190", False)
    assert capsys.readouterr().err == ""
    _serving("0.0.0.0:9190", True)
    shown = capsys.readouterr()
    assert "can run code on this machine" in shown.err
    assert "0.0.0.0:9190" in shown.out
