"""Builds for several threads, everywhere that binaries run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compilers.bundle import BundleInfo, load_bundle, verify_bundle, write_bundle
from compilers.devices import DeviceConfig, LocalCpu, RpcConfig, RpcDevice
from compilers.errors import BundleError, DeviceError
from compilers.measurement import MeasurementConfig
from compilers.native import build_native
from compilers.profile import profile_bundle
from spaces.layer_spec import Activation, LayerSpec, Operator
from spaces.quant_scheme import FP32, W8A8
from tests.compilers.rpc_board import Board

CPUS = sorted(os.sched_getaffinity(0))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.skipif(len(CPUS) < 2, reason="two threads need two processors"),
]

SHORT = MeasurementConfig(warmup_ms=5, batch_ms=0.5, min_repeats=20, max_repeats=20)
RELU = Activation.RELU
# Large enough that kernels divide their work.
SPECS = (
    LayerSpec("stem", Operator.CONV, 1, 16, 144, 72, 3, 2, activation=RELU, precision=FP32),
    LayerSpec("wide", Operator.CONV, 16, 24, 72, 72, activation=RELU, precision=W8A8),
    LayerSpec("narrow", Operator.CONV, 24, 16, 72, 72, activation=RELU, precision=FP32),
    LayerSpec("pool", Operator.GLOBAL_POOL, 16, 16, 72, 1),
    LayerSpec("classifier", Operator.LINEAR, 16, 10, precision=FP32),
)


@pytest.fixture(scope="module")
def two(cache):
    with LocalCpu(DeviceConfig(name="two", threads=2), cache) as device:
        yield device


@pytest.fixture(scope="module")
def pair(device, two, make_subnet, tmp_path_factory):
    """The same subnet, built for one thread and for two."""
    folder, subnet = tmp_path_factory.mktemp("threads"), make_subnet(SPECS)
    return [d.build(subnet, SPECS, folder / d.config.name) for d in (device, two)]


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(3).random((8, 1, 144, 144), dtype=np.float32)


@pytest.fixture(scope="module")
def bundle(pair, two, tmp_path_factory):
    info = BundleInfo({"resolution": 144}, "handmade")
    return write_bundle(tmp_path_factory.mktemp("out") / "b", pair[1], two, info, archive=False)


def bound(pid):
    """The one processor of each thread of a process."""
    tasks = [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
    return sorted(cpu for task in tasks for cpu in os.sched_getaffinity(task))


def test_outputs_of_two_threads_are_those_of_one_bit_for_bit(pair, device, two, x):
    one, both = pair
    assert (one.threads, both.threads) == (1, 2)
    assert b"TVMBackendParallelLaunch" in both.library.read_bytes()
    assert b"TVMBackendParallelLaunch" not in one.library.read_bytes()
    expected = device.run(one, x)
    for _ in range(5):
        np.testing.assert_array_equal(two.run(both, x), expected)
    # A pool of another size divides the same chunks.
    np.testing.assert_array_equal(device.run(both, x), expected)


def test_a_device_owns_as_many_processors_as_threads(pair, two):
    (found,) = two.time([pair[1]], SHORT)
    assert found.median_ms > 0
    pid = two._runtime.pid
    assert bound(pid) == CPUS[-2:]
    assert two.probe().threads == 2


def test_a_bundle_states_its_threads_and_its_runners_use_them(bundle, x, tmp_path):
    assert load_bundle(bundle).threads == 2
    assert verify_bundle(bundle, measure=False).difference == 0
    np.save(tmp_path / "x.npy", x)
    executable = build_native(bundle, tmp_path / "native" / "run")
    commands = [
        [sys.executable, bundle / "run.py"],
        [executable],
        [executable, "--threads", "1"],
    ]
    outputs = []
    for command in commands:
        given = ["--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy"]
        subprocess.run([*command, *given], check=True, capture_output=True)
        outputs.append(np.load(tmp_path / "y.npy"))
    for output in outputs[1:]:
        np.testing.assert_array_equal(output, outputs[0])
    done = subprocess.run(
        [executable, "--input", tmp_path / "x.npy", "--repeats", "3"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert "threads: 2" in done.stdout


def test_a_profile_is_of_one_thread(bundle):
    with pytest.raises(BundleError, match="cannot measure a roofline of 2 threads; allowed: 1"):
        profile_bundle(bundle)


def test_a_server_gives_the_threads_that_it_was_started_with(pair, two, x, tmp_path, cache):
    with (
        Board(tmp_path, threads=2) as board,
        RpcDevice(RpcConfig(name="board", port=board.port, threads=2), cache) as remote,
    ):
        np.testing.assert_array_equal(remote.run(pair[1], x), two.run(pair[1], x))
        (session,) = board.sessions()
        assert bound(session) == CPUS[-2:]
    with (
        Board(tmp_path) as board,
        RpcDevice(RpcConfig(name="board", port=board.port, threads=2), cache) as remote,
        pytest.raises(DeviceError, match="serve --threads 2"),
    ):
        remote.run(pair[1], x)
