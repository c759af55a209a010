from __future__ import annotations

import os
import shutil
import subprocess
from ctypes import CDLL
from pathlib import Path

import numpy as np
import pytest
import torch

from compilers.cuda_commands import EVERY_OPERATOR
from compilers.cuda_driver import RUNTIME, Gpu, find_gpus
from compilers.devices import DEVICES, CudaDevice, make_device, parse_device
from compilers.errors import DeviceError, MeasurementError, UnsupportedOperatorError
from compilers.measurement import MeasurementConfig
from spaces.layer_spec import Operator

SHORT = MeasurementConfig(warmup_ms=5, batch_ms=0.5, min_repeats=20, max_repeats=20)


def _absent() -> str:
    """Why there is no GPU here; empty when there is one."""
    try:
        find_gpus()
    except DeviceError as error:
        return str(error)
    return ""


ABSENT = _absent()


def cuda(**settings):
    return make_device(parse_device({"name": "gpu", "kind": "cuda", **settings}))


@pytest.fixture
def paper(monkeypatch):
    """A device whose GPU is only named."""
    monkeypatch.setattr("compilers.devices.cuda.find_gpus", lambda: (Gpu("Paper GPU", (8, 6)),))
    with cuda() as device:
        yield device


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch": 2}, "device gpu: batch is 2; allowed: 1"),
        ({"threads": 2}, "device gpu: threads is 2; allowed: 1"),
        ({"isa": "avx2"}, "isa is 'avx2'; allowed: native, or that of an NVIDIA GPU"),
        ({"isa": "sm_"}, "isa is 'sm_'"),
        ({"device": -1}, "device: "),
        ({"gpu": 1}, "unknown key 'gpu'"),
    ],
)
def test_settings_that_no_gpu_has(wrong, message):
    with pytest.raises(DeviceError, match=message):
        cuda(**wrong)
    assert "cuda" in DEVICES.names()


@pytest.mark.skipif(not ABSENT, reason="a GPU is here")
def test_where_no_gpu_is_it_says_what_is_missing():
    with pytest.raises(DeviceError, match=r"device gpu: .*NVIDIA driver"):
        cuda()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"device": 1}, r"device is 1; allowed: 0 to 0 \(Paper GPU\)"),
        ({"isa": "sm_90"}, "isa is 'sm_90', which Paper GPU does not execute; .*sm_80 to sm_86"),
        ({"isa": "sm_89"}, "does not execute"),
    ],
)
def test_settings_that_this_gpu_does_not_have(paper, wrong, message):
    with pytest.raises(DeviceError, match=message):
        cuda(**wrong)
    with cuda(isa="sm_80") as older:
        assert older.hardware == paper.hardware == "Paper GPU"


def test_it_refuses_what_it_cannot_execute(paper, subnets, tmp_path):
    with pytest.raises(UnsupportedOperatorError, match=r"a.expand is quantised; .*float32 only"):
        paper.build(subnets["w8a8"], subnets["w8a8"].specs, tmp_path / "build")
    assert list(tmp_path.iterdir()) == []
    assert paper.time([]) == []
    assert not CudaDevice.deploys


def test_what_it_builds_gets_as_far_as_the_gpu(paper, tmp_path, monkeypatch):
    """With a driver that can do nothing: code is compiled, linked and loaded; the launch fails."""
    gcc = shutil.which("gcc")
    if not ABSENT:
        pytest.skip("a GPU is here")
    if gcc is None or shutil.which("nvcc") is None:
        pytest.skip("it needs gcc and nvcc")
    try:
        CDLL(RUNTIME)
    except OSError:
        pytest.skip(f"it needs {RUNTIME}")
    source = Path(__file__).parents[1] / "paper_driver.c"
    library = tmp_path / "libcuda.so.1"
    subprocess.run([gcc, "-shared", "-fPIC", "-o", library, source], check=True)
    # Of the child; in this process the library would be every later test's driver.
    search = filter(None, [str(tmp_path), os.environ.get("LD_LIBRARY_PATH")])
    monkeypatch.setenv("LD_LIBRARY_PATH", os.pathsep.join(search))
    failed = r"\(Paper GPU\): its probe failed: the GPU failed: CUDA Runtime"
    with pytest.raises(DeviceError, match=failed):
        paper.probe()


def test_a_probe_has_every_operator():
    assert {spec.operator for spec in EVERY_OPERATOR} == set(Operator)


def test_a_machine_without_cudas_runtime_says_so(paper, monkeypatch):
    if not ABSENT:
        pytest.skip("a GPU is here")
    with pytest.raises(DeviceError, match=f"TVM has no CUDA devices: .* needs {RUNTIME}"):
        paper.probe()


@pytest.mark.skipif(bool(ABSENT), reason=f"no GPU: {ABSENT}")
def test_a_gpu_computes_what_the_module_computes(subnets, images, tmp_path):
    subnet = subnets["fp32"]
    with cuda() as device:
        found = device.probe()
        assert (found.schemes, found.operators) == ({"fp32"}, frozenset(Operator))
        assert found.hardware == device.hardware == find_gpus()[0].name
        build = device.build(subnet, subnet.specs, tmp_path / "build")
        assert build.hardware == device.hardware
        with torch.inference_mode():
            expected = subnet(torch.from_numpy(images)).numpy()
        logits = device.run(build, images)
        assert np.abs(logits - expected).max() <= build.tolerance * np.abs(expected).max()
        measured = device.time([build, build], SHORT)
        assert [m.clock for m in measured] == ["CUDA events"] * 2
        assert all(0 < m.p10_ms <= m.median_ms <= m.p90_ms for m in measured)
        with pytest.raises(MeasurementError, match="cache is 'cold'"):
            device.time([build], MeasurementConfig(cache="cold"))
