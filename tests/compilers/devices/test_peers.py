from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, save

from compilers.built import ONNX_FILE
from compilers.bundle import BundleInfo, write_bundle
from compilers.devices import DEVICES, DeviceConfig, make_device
from compilers.errors import (
    BundleError,
    DeviceError,
    MismatchError,
    UnsupportedOperatorError,
)
from compilers.measurement import MeasurementConfig
from compilers.peer_commands import OnnxPeer, _infer
from spaces.layer_spec import Operator

pytestmark = pytest.mark.slow

KINDS = ("onnxruntime", "torch")
SHORT = MeasurementConfig(warmup_ms=5, batch_ms=0.5, min_repeats=20, max_repeats=20)


@pytest.fixture(scope="module", params=KINDS)
def peer(request):
    with make_device(DeviceConfig(name="peer", kind=request.param)) as device:
        yield device


@pytest.fixture(scope="module")
def built(peer, subnets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("peer")
    return {
        name: peer.build(subnets[name], subnets[name].specs, folder / name)
        for name in ("fp32", "w8a8")
    }


def test_it_computes_what_the_module_computes(peer, built, subnets, images):
    with torch.inference_mode():
        expected = {name: subnets[name](torch.from_numpy(images)).numpy() for name in built}
    for name, build in built.items():
        found = peer.run(build, images)
        assert found.shape == (16, 10)
        scale = np.abs(expected[name]).max()
        assert np.abs(found - expected[name]).max() <= build.tolerance * scale
    assert built["fp32"].tolerance < 1e-3


def test_it_is_measured_like_every_device(peer, built):
    found = peer.time(list(built.values()), SHORT)
    assert [m.repeats for m in found] == [20, 20]
    assert all(0 < m.p10_ms <= m.median_ms <= m.p90_ms for m in found)
    assert peer.time([]) == []
    assert len(os.sched_getaffinity(peer._runtime.pid)) == 1


def test_it_declares_float32_alone(peer, device):
    found = peer.probe()
    assert found.schemes == {"fp32"}
    assert found.operators == frozenset(Operator)
    assert (found.isa, found.threads, found.hardware) == ("native", 1, device.hardware)


def test_its_builds_hold_no_library_and_become_no_bundles(peer, built, tmp_path):
    assert not built["fp32"].library.exists()
    with pytest.raises(BundleError, match=r"peer: the kind .* runs no compiled library"):
        write_bundle(tmp_path / "b", built["fp32"], peer, BundleInfo({}, "handmade"))
    assert list(tmp_path.iterdir()) == []
    assert peer.export_onnx(built["fp32"], tmp_path / "twin.onnx") < 1e-3


def test_a_subnet_whose_outputs_are_wrong_is_refused(built, subnets, tmp_path, monkeypatch):
    """The check sees the runtime's own outputs."""
    code = """
import sys
if "compilers.worker" in " ".join(sys.orig_argv):
    import compilers.peer_commands as p
    p.PEERS["torch"] = lambda folder, threads, batch: type("Wrong", (), {
        "bind": lambda self, x: lambda: __import__("numpy").ones((1, 10), "float32")})()
"""
    (tmp_path / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (
        make_device(DeviceConfig(name="peer", kind="torch")) as peer,
        pytest.raises(MismatchError, match="torch"),
    ):
        peer.build(subnets["fp32"], subnets["fp32"].specs, tmp_path / "build")
    assert not (tmp_path / "build").exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"isa": "avx2"}, "isa is 'avx2', but .* by itself; allowed: native"),
        ({"batch": 0}, "batch is 0; allowed: >= 1"),
        ({"threads": 9999}, "threads is 9999; allowed: 1 to"),
    ],
)
def test_settings_that_are_refused(kind, wrong, message):
    with pytest.raises(DeviceError, match=f"peer: {message}"):
        make_device(DeviceConfig(name="peer", kind=kind, **wrong))
    assert kind in DEVICES.names()


def test_two_threads_own_two_processors(subnets, images, tmp_path):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two threads need two processors")
    config = DeviceConfig(name="peer", kind="torch", threads=2)
    with make_device(config) as peer:
        build = peer.build(subnets["fp32"], subnets["fp32"].specs, tmp_path / "build")
        assert build.threads == 2
        assert peer.run(build, images).shape == (16, 10)
        assert len(os.sched_getaffinity(peer._runtime.pid)) == 2


def test_a_batch_is_inferred_at_once(peer, built, subnets, images, tmp_path):
    subnet = subnets["fp32"]
    with torch.inference_mode():
        expected = subnet(torch.from_numpy(images)).numpy()
    with make_device(peer.config.model_copy(update={"batch": 48})) as larger:
        build = larger.build(subnet, subnet.specs, tmp_path / "build")
        assert build.input_shape == (48, 1, 12, 12)
        assert build.output_shape == (48, 10)
        assert larger.probe().batch == 48
        # A build serves every batch of its runtime.
        assert larger.build_key == peer.build_key == peer.config.kind
        found = larger.run(built["fp32"], images)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= build.tolerance * np.abs(expected).max()
        large = larger.time([built["fp32"]], SHORT)[0].median_ms
        small = peer.time([build], SHORT)[0].median_ms
        assert large > 2 * small


@pytest.mark.parametrize("batch", [1, 3, 8, 20])
def test_a_last_batch_of_fewer_inputs_is_filled_up(batch):
    seen = []

    class Doubling:
        def bind(self, x):
            seen.append(len(x))
            return lambda: 2 * x

    x = np.arange(8, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(_infer(Doubling(), x, batch), 2 * x)
    assert seen == [batch] * -(-8 // batch)


def test_a_twin_that_mixes_inputs_takes_no_batch(tmp_path):
    def write(batch):
        shapes = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 2]) for name in "xy"
        ]
        nodes = [helper.make_node("Relu", ["x"], ["y"])]
        graph = helper.make_graph(nodes, "twin", shapes[:1], shapes[1:])
        opset = [helper.make_opsetid("", 17)]
        save(helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / ONNX_FILE)

    write("N")
    assert OnnxPeer(tmp_path, 1, 8).bind(np.ones((8, 2), np.float32))().shape == (8, 2)
    write(1)
    OnnxPeer(tmp_path, 1, 1)
    with pytest.raises(UnsupportedOperatorError, match="takes 1 input at a time, not 8"):
        OnnxPeer(tmp_path, 1, 8)
