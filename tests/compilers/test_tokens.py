"""Libraries whose inputs are int64 tokens and whose results have more axes than logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compilers.built import timing_input
from compilers.devices import RpcConfig, RpcDevice
from compilers.errors import MeasurementError
from compilers.measurement import MeasurementConfig
from compilers.runtime import BundleRuntimeError, Model
from tests.compilers.rpc_board import Board

pytestmark = pytest.mark.slow

SHORT = MeasurementConfig(warmup_ms=1, batch_ms=0.1, min_repeats=20, max_repeats=20)
TOKENS = np.array([[3, 1, 19, 0], [7, 7, 2, 18], [5, 4, 3, 2]])


@pytest.fixture(scope="module")
def expected(token_build):
    return token_build[1](torch.from_numpy(TOKENS)).numpy()


def test_a_local_device_runs_and_times_them(device, token_build, expected):
    build, _ = token_build
    found = device.run(build, TOKENS)
    assert found.shape == (3, 4, 16)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    # Shorter integers are the same tokens.
    np.testing.assert_array_equal(device.run(build, TOKENS.astype(np.uint8)), found)
    assert [m.repeats for m in device.time([build], SHORT)] == [20]
    timing = device.profile(build, SHORT)
    assert [call.symbol for call in timing.calls] == [r.symbol for r in build.kernels]
    assert timing.calls[-1].output_shape == (4, 16)


def test_a_server_runs_and_times_them(token_build, expected, cache, tmp_path):
    build, _ = token_build
    with (
        Board(tmp_path) as board,
        RpcDevice(RpcConfig(name="board", port=board.port), cache) as remote,
    ):
        found = remote.run(build, TOKENS)
        assert [m.repeats for m in remote.time([build], SHORT)] == [20]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_floats_do_not_become_tokens(device, token_build):
    build, _ = token_build
    with pytest.raises(MeasurementError, match="inputs are float32; the build takes int64"):
        device.run(build, TOKENS.astype(np.float32))
    with pytest.raises(BundleRuntimeError, match="inputs are float32; the library takes int64"):
        Model(build.library, "int64")(TOKENS.astype(np.float32))


def test_latencies_are_measured_with_a_token_of_every_vocabulary():
    assert timing_input((1, 4), "int64").tolist() == [[0, 0, 0, 0]]
    noise = timing_input((1, 2, 3), "float32")
    assert noise.dtype == np.float32
    assert len(np.unique(noise)) == 6
