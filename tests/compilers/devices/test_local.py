from __future__ import annotations

import os

import numpy as np
import pytest
from pydantic import ValidationError

from compilers.devices import DEVICES, DeviceConfig, LocalCpu, make_device
from compilers.errors import DeviceError, MeasurementError
from compilers.measurement import MeasurementConfig
from compilers.targets import host_isas
from spaces.errors import UnknownNameError
from spaces.layer_spec import Operator
from spaces.quant_scheme import PRECISIONS

INTEGER = {name for name, precision in PRECISIONS.items() if precision.integer}
NARROW = {"w2a8", "w3a8", "w4a8"}


def test_the_probe_declares_what_executes(device):
    found = device.probe()
    assert found.isa == host_isas()[0]
    assert found.operators == frozenset(Operator)
    assert found.schemes == set(PRECISIONS)
    assert (found.threads, found.batch) == (1, 1)
    assert found.hardware


@pytest.mark.slow
@pytest.mark.parametrize("isa", host_isas())
def test_a_second_probe_knows_the_answer(cache, isa, monkeypatch):
    with LocalCpu(DeviceConfig(name="cpu", isa=isa), cache) as device:
        first = device.probe()
    assert first.operators == frozenset(Operator)
    assert first.schemes == set(PRECISIONS)

    def asked_again(*_):
        raise AssertionError("a kernel is compiled and executed again")

    monkeypatch.setattr(LocalCpu, "_executes", asked_again)
    with LocalCpu(DeviceConfig(name="cpu", isa=isa), cache) as device:
        assert device.probe() == first


BREAKING = """
import sys
if "compilers.worker" in " ".join(sys.orig_argv):
    from compilers import kernels
"""
BROKEN = """
    def broken(self, isa, params, original=kernels.{kernel}.constants):
        weight, start, *rest = original(self, isa, params)
        if self.input_dtype == "{dtype}":
            {action}
        return weight, start, *rest
    kernels.{kernel}.constants = broken
"""


@pytest.fixture
def break_kernels(tmp_path, monkeypatch):
    """Template, input type and code: what the kernels do to their constants in child processes."""

    def change(*breaks):
        parts = [BROKEN.format(kernel=k, dtype=dtype, action=action) for k, dtype, action in breaks]
        (tmp_path / "sitecustomize.py").write_text(BREAKING + "".join(parts))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return change


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depthwise", "excite", "missing"),
    [
        ("start = start + 1", "weight = weight * 2", {*INTEGER, Operator.SQUEEZE_EXCITE}),
        # Each crash costs a new child: in one precision only.
        (
            "import os; self.weight_bits == 8 and os.abort()",
            "raise RuntimeError('no')",
            {*(INTEGER - NARROW), Operator.SQUEEZE_EXCITE},
        ),
        ("start = start + (self.weight_bits == 4)", "pass", NARROW),
    ],
)
def test_what_is_broken_is_not_declared(tmp_path, break_kernels, depthwise, excite, missing):
    break_kernels(("Depthwise", "uint8", depthwise), ("SqueezeExcite", "float32", excite))
    with LocalCpu(DeviceConfig(name="cpu"), tmp_path / "cache") as device:
        found = device.probe()
    assert found.operators == frozenset(Operator) - missing
    assert found.schemes == set(PRECISIONS) - missing
    assert not list((tmp_path / "cache").rglob("probe*.json")), "a failure is asked again"


def test_a_probe_that_times_out_is_no_answer(tmp_path, monkeypatch):
    monkeypatch.setattr("compilers.devices.local.PROBE_TIMEOUT", 0.01)
    message = r"attention in fp32 .*probe it again.*longer than 0\.01 s"
    with (
        LocalCpu(DeviceConfig(name="cpu"), tmp_path) as device,
        pytest.raises(DeviceError, match=message),
    ):
        device.probe()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("action", "message"),
    [
        ("raise OSError(28, 'No space left on device')", "No space left"),
        ("raise MemoryError('1 TiB')", "1 TiB"),
        # What Linux does when memory runs out.
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
    ],
)
def test_what_the_machine_causes_is_no_answer(tmp_path, break_kernels, action, message):
    break_kernels(("Conv", "float32", action))
    with (
        LocalCpu(DeviceConfig(name="cpu"), tmp_path / "cache") as device,
        pytest.raises(DeviceError, match=rf"conv in fp32 .*probe it again.*{message}"),
    ):
        device.probe()


def test_a_probe_that_cannot_be_stored_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(LocalCpu, "_executes", lambda *_: True)
    (tmp_path / "kernels").touch()
    with (
        LocalCpu(DeviceConfig(name="cpu"), tmp_path) as other,
        pytest.raises(DeviceError, match=r"cannot be stored in .*NETCARVE_CACHE"),
    ):
        other.probe()


@pytest.mark.parametrize(
    ("wrong", "allowed"),
    [
        ({"batch": 4}, "allowed: 1"),
        ({"threads": 0}, "allowed: >= 1"),
        ({"threads": 9999}, rf"allowed: 1 to {len(os.sched_getaffinity(0))}, the number of"),
    ],
)
def test_batch_one_and_no_more_threads_than_processors(wrong, allowed):
    with pytest.raises(DeviceError, match=allowed):
        LocalCpu(DeviceConfig(name="cpu", **wrong))


def test_an_isa_that_the_cpu_lacks_is_an_error(monkeypatch):
    import compilers.targets as targets

    monkeypatch.setattr(targets, "host_cpu_flags", lambda: targets.ISAS["avx2"].cpu_flags)
    with pytest.raises(DeviceError, match="avx512_vnni"):
        LocalCpu(DeviceConfig(name="cpu", isa="avx512_vnni"))
    assert LocalCpu(DeviceConfig(name="cpu")).isa.name == "avx2"


@pytest.mark.parametrize(
    "wrong", [{"name": ""}, {"name": "a/b"}, {"name": "a", "isa": 2}, {"name": "a", "x": 1}]
)
def test_configs_are_validated(wrong):
    with pytest.raises(ValidationError):
        DeviceConfig.model_validate(wrong)


def test_an_unknown_isa_is_an_error_of_the_device_that_lists_the_known():
    with pytest.raises(DeviceError, match=r"cpu: unknown isa 'neon'.*native, avx512_vnni, avx512"):
        make_device(DeviceConfig(name="cpu", isa="neon"))


def test_kinds_come_from_the_registry(cache):
    assert "local_cpu" in DEVICES.names()
    assert isinstance(make_device(DeviceConfig(name="cpu"), cache), LocalCpu)
    with pytest.raises(UnknownNameError, match="local_cpu"):
        make_device(DeviceConfig(name="cpu", kind="loca_cpu"), cache)


@pytest.mark.slow
def test_another_isa_gives_the_same_logits(cache, subnets, builds, device, images, tmp_path):
    if "avx2" not in host_isas() or builds["fp32"].isa == "avx2":
        pytest.skip("this CPU has one instruction set only")
    with LocalCpu(DeviceConfig(name="avx2", isa="avx2"), cache) as other:
        build = other.build(subnets["mixed"], subnets["mixed"].specs, tmp_path / "build")
        assert build.isa == "avx2"
        assert not set(build.kernels) & set(builds["mixed"].kernels)
        found, expected = other.run(build, images), device.run(builds["mixed"], images)
    assert np.abs(found - expected).max() / np.abs(expected).max() <= build.tolerance


@pytest.mark.slow
def test_a_rebuilt_library_is_not_confused_with_the_old_one(
    device, subnets, make_subnet, images, tmp_path
):
    specs = subnets["fp32"].specs
    for seed in (0, 1):
        subnet = make_subnet(specs, seed)
        logits = device.run(device.build(subnet, specs, tmp_path / "same"), images)
        import torch

        expected = subnet(torch.from_numpy(images)).detach().numpy()
        np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.alone
def test_measurements_of_several_builds(device, builds):
    config = MeasurementConfig(warmup_ms=5, batch_ms=0.5, min_repeats=20, max_repeats=40)
    found = device.time(list(builds.values()), config)
    assert len(found) == 3
    for measurement in found:
        assert 0.001 < measurement.median_ms < 50
        assert measurement.p10_ms <= measurement.median_ms <= measurement.p90_ms
        assert 20 <= measurement.repeats <= 40
    # The three are one session: they share its twin, and the twin is the first build.
    (ratio,) = {measurement.aa_ratio for measurement in found}
    first = found[0]
    assert first.p10_ms / first.p90_ms / 1.5 < ratio < first.p90_ms / first.p10_ms * 1.5
    assert device.time([]) == []


def test_running_a_damaged_library_is_an_error(device, builds, images, tmp_path):
    import dataclasses
    import shutil

    shutil.copytree(builds["fp32"].folder, tmp_path / "copy")
    (tmp_path / "copy" / "library.so").write_bytes(b"\x7fELF nonsense")
    broken = dataclasses.replace(builds["fp32"], folder=tmp_path / "copy")
    with pytest.raises(MeasurementError):
        device.run(broken, images)
    assert device.run(builds["fp32"], images).shape == (16, 10)
