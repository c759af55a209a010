"""An emulated ARM processor as a device: the outputs of x86, instructions instead of times."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from compilers.bundle import BundleInfo, load_bundle, verify_bundle, write_bundle
from compilers.devices import EmulatedAarch64, make_device, parse_device
from compilers.errors import BuildError, BundleError, DeviceError, MeasurementError
from compilers.native import build_native
from compilers.targets import find_isa
from compilers.toolchain import is_foreign, tool_name
from compilers.tvm_runtime import find_runtime
from spaces.files import sha256_file
from spaces.layer_spec import Operator
from spaces.quant_scheme import PRECISIONS
from tests.compilers.attention_specs import attention_specs

ISA = find_isa("neon_dot")
RUNTIME = os.environ.get("NETCARVE_TVM_AARCH64", "")
TOOLS = ("qemu-aarch64", tool_name(ISA.architecture, "g++"))


def missing() -> str:
    """Why nothing can be emulated here; empty when it can."""
    if not is_foreign(ISA.architecture):
        return "this machine is of that architecture"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        return f"{absent[0]} is not installed"
    return "" if RUNTIME else "NETCARVE_TVM_AARCH64 names no folder with TVM's runtime for aarch64"


emulates = pytest.mark.skipif(bool(missing()), reason=missing() or "-")


def settings(**changes):
    return parse_device(
        {"name": "arm", "kind": "emulated_aarch64", "runtime": RUNTIME or "/tvm"} | changes
    )


@pytest.fixture(scope="module")
def arm(cache):
    with make_device(settings(), cache) as device:
        yield device


@pytest.fixture(scope="module")
def arm_builds(arm, subnets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("arm")
    return {
        name: arm.build(subnets[name], subnets[name].specs, folder / name)
        for name in ("fp32", "w8a8")
    }


@pytest.fixture(scope="module")
def bundle(arm, arm_builds, tmp_path_factory):
    info = BundleInfo({"resolution": 12}, "handmade")
    path = tmp_path_factory.mktemp("out") / "b"
    return write_bundle(path, arm_builds["w8a8"], arm, info, archive=False)


@pytest.fixture(scope="module")
def executable(bundle, tmp_path_factory):
    return build_native(bundle, tmp_path_factory.mktemp("native") / "a" / "run", runtime=RUNTIME)


@emulates
@pytest.mark.slow
@pytest.mark.parametrize("name", ["fp32", "w8a8"])
def test_a_subnet_gives_the_logits_of_the_python_runner(
    arm, arm_builds, device, builds, images, name
):
    build = arm_builds[name]
    assert build.isa == "neon_dot"
    found, expected = arm.run(build, images), device.run(builds[name], images)
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    # Integers agree to within a step in 0.01 % of values, and this net has fewer than that.
    assert difference <= 1e-5
    assert expected.std(axis=0).min() > 0


@emulates
@pytest.mark.slow
def test_a_subnet_with_attention_computes_what_its_module_computes(arm, make_subnet, tmp_path):
    specs = attention_specs("w8a8")
    # Compares every stored tensor with the module's operators; see `check.LayerCheck`.
    build = arm.build(make_subnet(specs), specs, tmp_path / "attention")
    assert "Attention" in {record.kernel for record in build.kernels}


@emulates
@pytest.mark.slow
def test_integer_layers_are_sdot_in_the_linked_code(arm_builds):
    counts = {}
    for name, build in arm_builds.items():
        listing = subprocess.run(
            [tool_name(ISA.architecture, "objdump"), "-d", "--no-show-raw-insn", build.library],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        counts[name] = len(re.findall(r"\tsdot\t", listing))
    assert counts["fp32"] == 0
    assert counts["w8a8"] > 50


@emulates
@pytest.mark.slow
def test_instructions_are_counted_and_time_is_refused(arm, arm_builds, device, builds):
    fp32, w8a8 = arm.instructions(list(arm_builds.values()))
    macs = 500_000
    assert macs / 8 < w8a8 < fp32 * 1.1 < 4 * macs
    with pytest.raises(DeviceError, match="cannot measure latencies; it is emulated"):
        arm.time(list(arm_builds.values()))
    with pytest.raises(DeviceError, match="cannot count instructions"):
        device.instructions([builds["fp32"]])


@emulates
@pytest.mark.slow
def test_the_probe_runs_the_kernels(arm):
    found = arm.probe()
    assert found.isa == "neon_dot"
    assert found.operators == frozenset(Operator)
    assert found.schemes == set(PRECISIONS)
    assert found.hardware == "emulated cortex-a76 (qemu-aarch64)"


@emulates
@pytest.mark.slow
def test_a_kernel_that_is_wrong_is_not_declared(arm, monkeypatch):
    def call(_emulator, _library, calls):
        calls[0].arguments[-1].fill(3)

    monkeypatch.setattr("compilers.devices.emulated.call_kernels", call)
    assert not arm._executes(Operator.LINEAR, "fp32")


@emulates
@pytest.mark.slow
def test_a_library_that_does_not_load_is_an_error(arm, arm_builds, images, tmp_path):
    folder = Path(shutil.copytree(arm_builds["fp32"].folder, tmp_path / "copy"))
    (folder / "library.so").write_bytes(b"\x7fELF nonsense")
    broken = dataclasses.replace(arm_builds["fp32"], folder=folder)
    with pytest.raises(MeasurementError, match="no library of a compiled subnet"):
        arm.run(broken, images)


@emulates
@pytest.mark.slow
def test_a_bundle_becomes_an_executable_of_the_processor(
    bundle, executable, arm, arm_builds, images, tmp_path
):
    assert load_bundle(bundle).isa == "neon_dot"
    with pytest.raises(BundleError, match=r"this CPU lacks .*asimddp.* compiled for neon_dot"):
        verify_bundle(bundle, measure=False)
    with pytest.raises(BuildError, match=r"TVM's runtime for aarch64 is needed: pip install"):
        build_native(bundle, tmp_path / "none" / "run")
    np.save(tmp_path / "x.npy", images)
    arm.emulator.run(executable, ["--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy"])
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), arm.run(arm_builds["w8a8"], images))
    # The processor that lacks an instruction says so itself.
    done = subprocess.run(
        [arm.emulator.qemu, "-cpu", "cortex-a72", "-L", arm.emulator.system, executable,
         "--input", tmp_path / "x.npy"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert re.search(
        "this CPU lacks .*asimddp.*; the bundle was compiled for neon_dot", done.stderr
    )


@emulates
@pytest.mark.slow
def test_an_executable_that_is_wrong_under_emulation_is_not_kept(bundle, executable, tmp_path):
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    np.save(copy / "output.npy", np.load(copy / "output.npy") + 1)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"]["output.npy"]["sha256"] = sha256_file(copy / "output.npy")
    (copy / "manifest.json").write_text(json.dumps(manifest))
    ready = tmp_path / "compiler"
    ready.write_text(f'#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done; cp \'{executable}\' "$2"\n')
    ready.chmod(0o755)
    with pytest.raises(BuildError, match="was built, but fails: outputs differ"):
        build_native(copy, compiler=str(ready), runtime=RUNTIME)
    assert not (copy / "native").exists()


@pytest.mark.parametrize("tool", TOOLS)
def test_what_is_not_installed_is_an_error_of_the_device(monkeypatch, tmp_path, tool):
    monkeypatch.setattr(shutil, "which", lambda name: None if name == tool else f"/bin/{name}")
    with pytest.raises(DeviceError, match=rf"device arm: .*{re.escape(tool)}.*apt-get install"):
        make_device(settings(), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"isa": "avx2"}, "isa 'avx2' is of x86_64; allowed: native, neon_dot"),
        ({"isa": "neon"}, "unknown isa 'neon'"),
        ({"batch": 2}, "batch is 2; allowed: 1"),
        ({"threads": 2}, "threads is 2; allowed: 1"),
        ({"runtime": "/nowhere"}, r"/nowhere/tvm/lib/.*no such file.*pip install .*apache-tvm=="),
    ],
)
def test_settings_that_are_refused(monkeypatch, tmp_path, changes, message):
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    with pytest.raises(DeviceError, match=f"device arm: .*{message}"):
        EmulatedAarch64(settings(**changes), tmp_path)


def test_the_runtime_must_be_named():
    with pytest.raises(DeviceError, match="runtime"):
        parse_device({"name": "arm", "kind": "emulated_aarch64"})


def test_the_runtime_of_this_machine_is_the_installed_one():
    import platform

    runtime = find_runtime(platform.machine())
    assert all(path.is_file() for path in runtime.libraries)
    assert (runtime.include / "tvm" / "ffi" / "c_api.h").is_file()
