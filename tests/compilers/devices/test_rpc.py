from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from compilers.devices import DEVICES, DeviceConfig, RpcConfig, RpcDevice, make_device, parse_device
from compilers.errors import DeviceConnectionError, DeviceError, MeasurementError
from compilers.measurement import MeasurementConfig
from compilers.rpc_commands import CLOCK
from compilers.rpc_server import exposed, parse_address
from compilers.targets import host_isas
from spaces.layer_spec import Operator
from tests.compilers.rpc_board import ROOT, Board, free_port, running

SHORT = MeasurementConfig(warmup_ms=5, batch_ms=0.5, min_repeats=20, max_repeats=40)
ENDLESS = MeasurementConfig(min_repeats=10**6, max_repeats=10**6)


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    with Board(tmp_path_factory.mktemp("board")) as started:
        yield started


@pytest.fixture(scope="module")
def remote(board, cache):
    with RpcDevice(RpcConfig(name="board", port=board.port), cache) as device:
        yield device


def test_binaries_compute_there_what_they_compute_here(remote, device, builds, images):
    for build in builds.values():
        np.testing.assert_array_equal(remote.run(build, images), device.run(build, images))


def test_a_session_uploads_each_library_once(remote, board, builds, images):
    remote.run(builds["fp32"], images)
    before = board.uploaded()
    remote.run(builds["fp32"], images)
    remote.time([builds["fp32"], builds["w8a8"]], SHORT)
    after = board.uploaded()
    assert len(after) >= 2
    assert before.items() <= after.items()
    assert len({Path(path).parent for path in after}) == 1


@pytest.mark.alone
def test_measurements_are_the_servers_own_and_without_the_network(remote, device, builds):
    found = remote.time(list(builds.values()), SHORT)
    here = device.time(list(builds.values()), SHORT)
    assert len(found) == 3
    for there, local in zip(found, here, strict=True):
        assert there.clock == CLOCK != local.clock
        assert 20 <= there.repeats <= 40
        assert there.p10_ms <= there.median_ms <= there.p90_ms
        # A call over loopback takes longer than these binaries.
        assert there.p10_ms < 2 * local.p90_ms
        assert local.p10_ms < 4 * there.p90_ms
    (ratio,) = {measurement.aa_ratio for measurement in found}
    assert 0.5 < ratio < 2
    # The loop that watches the clock would run on the wrong machine.
    assert all(there.reference_drift is None and there.drift is not None for there in found)
    assert remote.time([]) == []


def test_what_needs_the_measured_processor_itself_is_refused(remote, builds):
    cold = dataclasses.replace(SHORT, cache="cold")
    with pytest.raises(MeasurementError, match="another machine's caches cannot be flushed"):
        remote.time([builds["fp32"]], cold)
    with pytest.raises(DeviceError, match="board: the kind 'tvm_rpc' cannot time single kernels"):
        remote.profile(builds["fp32"])
    with pytest.raises(DeviceError, match=r"board: .*cannot measure its roofline"):
        remote.roofline()


@pytest.mark.slow
def test_a_server_killed_in_mid_measurement_costs_that_measurement(remote, board, builds, images):
    expected = remote.run(builds["fp32"], images)
    (session,) = board.sessions()
    threading.Timer(1.0, board.kill).start()
    with pytest.raises(DeviceConnectionError, match=rf"board: .*:{board.port}.*refused"):
        remote.time([builds["fp32"]], ENDLESS)
    assert not running(session), "its sessions end with it"
    board.start()
    np.testing.assert_array_equal(remote.run(builds["fp32"], images), expected)
    assert len(remote.time([builds["fp32"]], SHORT)) == 1


@pytest.mark.slow
def test_a_session_that_crashes_is_tried_again_and_the_server_goes_on(remote, board, builds):
    remote.time([builds["fp32"]], SHORT)
    first = board.sessions()
    threading.Timer(0.2, board.crash_session).start()
    config = dataclasses.replace(SHORT, min_repeats=400, max_repeats=400)
    assert len(remote.time([builds["fp32"]], config)) == 1
    assert board.sessions() != first


@pytest.mark.slow
def test_devices_of_one_server_take_turns(remote, board, builds, images, cache):
    expected = remote.run(builds["fp32"], images)
    config = RpcConfig(name="other", port=board.port, isa=host_isas()[-1])
    with RpcDevice(config, cache) as other:
        np.testing.assert_array_equal(other.run(builds["fp32"], images), expected)
        assert len(board.sessions()) == 1


def test_a_damaged_library_is_an_error_of_that_library(remote, builds, images, tmp_path):
    shutil.copytree(builds["fp32"].folder, tmp_path / "copy")
    (tmp_path / "copy" / "library.so").write_bytes(b"\x7fELF nonsense")
    broken = dataclasses.replace(builds["fp32"], folder=tmp_path / "copy")
    with pytest.raises(MeasurementError, match=r"failed on the server at 127\.0\.0\.1:"):
        remote.run(broken, images)
    assert remote.run(builds["fp32"], images).shape == (16, 10)


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_an_error(builds, images, monkeypatch):
    monkeypatch.setattr("compilers.devices.rpc.RETRY_SECONDS", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        config = RpcConfig(name="silent", port=port, connect_timeout_s=0.3)
        message = r"silent: the server at .* did not answer to 'connect' within 0\.3 s"
        with RpcDevice(config) as device, pytest.raises(DeviceConnectionError, match=message):
            device.run(builds["fp32"], images)


@pytest.mark.slow
def test_a_session_that_hangs_is_given_up_on_both_sides(board, builds, images, cache):
    with RpcDevice(RpcConfig(name="board", port=board.port, timeout_s=2.0), cache) as device:
        expected = device.run(builds["fp32"], images)
        (session,) = board.sessions()
        os.kill(session, signal.SIGSTOP)
        np.testing.assert_array_equal(device.run(builds["fp32"], images), expected)
    os.kill(session, signal.SIGKILL)


@pytest.mark.slow
def test_what_it_builds_is_what_is_built_here(remote, device, subnets, builds, images, tmp_path):
    assert remote.hardware == device.hardware
    subnet = subnets["mixed"]
    build = remote.build(subnet, subnet.specs, tmp_path / "build")
    assert build.isa == remote.isa.name == host_isas()[0]
    assert build.library.read_bytes() == builds["mixed"].library.read_bytes()
    np.testing.assert_array_equal(remote.run(build, images), device.run(build, images))


@pytest.mark.slow
def test_kernels_that_are_wrong_there_are_not_declared(remote, monkeypatch):
    def execute(command, arguments, original=remote._execute):
        if command == "kernel" and arguments["dtype"] == "uint8":
            np.save(arguments["expected"], np.load(arguments["expected"]) + 300)
        return original(command, arguments)

    monkeypatch.setattr(remote, "_execute", execute)
    assert not remote._executes(Operator.GLOBAL_POOL, "w8a8")
    assert remote._executes(Operator.GLOBAL_POOL, "fp32")


def test_a_server_without_the_instruction_set_is_refused(cache, monkeypatch):
    device = RpcDevice(RpcConfig(name="board", isa=host_isas()[0]), cache)
    told = {"processor": "Small CPU", "flags": ["sse2"]}
    monkeypatch.setattr(device, "_execute", lambda *_: told)
    with pytest.raises(DeviceError, match=r"board: .*\(Small CPU\) lacks .*avx2.*for isa"):
        device.probe()


def test_a_server_that_tells_nothing_needs_a_named_isa(cache, monkeypatch):
    named, native = (
        RpcDevice(RpcConfig(name="board", port=7, isa=isa), cache)
        for isa in (host_isas()[-1], "native")
    )
    for device in (named, native):
        monkeypatch.setattr(device, "_execute", lambda *_: None)
    assert named.isa.name == host_isas()[-1]
    assert named.hardware == "unknown CPU behind TVM RPC at 127.0.0.1:7"
    with pytest.raises(DeviceError, match="does not tell what its CPU executes; name it: avx512"):
        _ = native.isa


@pytest.mark.slow
def test_a_tracker_finds_the_server(builds, images, tmp_path):
    pytest.importorskip("tornado", reason="TVM's tracker needs it, nothing else does")
    tracker, board = free_port(), free_port()
    serve = f"""
from compilers.rpc_server import serve
serve("127.0.0.1", {board}, "rack", ("127.0.0.1", {tracker}), ready=lambda *a: print(a, flush=True))
"""
    track = f"""
import socket
from tvm.rpc.tracker import _tracker_server
sock = socket.create_server(("127.0.0.1", {tracker}))
print("listens", flush=True)
_tracker_server(sock, "stop")
"""
    started = []
    for code in (track, serve):
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        process.stdout.readline()
    try:
        config = RpcConfig(name="rack", port=tracker, key="rack", tracker=True)
        with RpcDevice(config, tmp_path) as device:
            assert device.run(builds["fp32"], images).shape == (16, 10)
    finally:
        for process in started:
            process.kill()
            process.wait()
            process.stdout.close()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prot": 1}, "unknown key 'prot'. Did you mean 'port'"),
        ({"port": 0}, "port: .*greater than or equal to 1"),
        ({"host": ""}, "host: "),
        ({"key": "a b"}, "key: "),
        ({"tracker": True}, "set key"),
        ({"timeout_s": 0}, "timeout_s: "),
        ({"threads": "two"}, "threads: "),
        ({"kind": "local_cpu", "port": 9190}, "unknown key 'port'"),
    ],
)
def test_settings_are_those_of_the_kind(wrong, message):
    with pytest.raises(DeviceError, match=message):
        parse_device({"name": "board", "kind": "tvm_rpc"} | wrong)


def test_settings_survive_json():
    config = parse_device({"name": "board", "kind": "tvm_rpc", "port": "9191", "isa": "avx2"})
    assert config == RpcConfig(name="board", port=9191, isa="avx2")
    assert parse_device(json.loads(config.model_dump_json())) == config
    stored = {"name": "cpu", "kind": "local_cpu", "isa": "native", "threads": 1, "batch": 1}
    assert parse_device(stored) == DeviceConfig(name="cpu")
    assert parse_device(stored).model_dump() == stored


def test_the_kind_is_registered_and_takes_no_other_settings(cache):
    assert "tvm_rpc" in DEVICES.names()
    assert isinstance(make_device(RpcConfig(name="board"), cache), RpcDevice)
    with pytest.raises(DeviceError, match="allowed for tvm_rpc: RpcConfig"):
        make_device(DeviceConfig(name="board", kind="tvm_rpc"), cache)
    with pytest.raises(DeviceError, match="batch is 2; allowed: 1"):
        make_device(RpcConfig(name="board", batch=2), cache)


def test_only_loopback_is_safe_from_other_machines():
    assert [exposed(a) for a in ("127.0.0.1", "::1")] == [False, False]
    assert [exposed(a) for a in ("0.0.0.0", "::", "192.168.1.4")] == [True, True, True]


def test_addresses_of_trackers():
    assert parse_address("board.local:9190") == ("board.local", 9190)
    for wrong in ("board", "board:", ":9190", "board:x", "board:70000"):
        with pytest.raises(DeviceError, match="allowed: HOST:PORT"):
            parse_address(wrong)
