from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from compilers import runtime
from compilers.bundle import (
    RUNNER_FILES,
    BundleInfo,
    load_bundle,
    verify_bundle,
    write_bundle,
)
from compilers.errors import BundleError
from compilers.measurement import Measurement
from compilers.onnx_export import run_onnx
from compilers.targets import ISAS
from spaces.cost import cost
from spaces.files import sha256_file
from supernet.extract import load_subnet

# Everything here needs compiled subnets.
pytestmark = pytest.mark.slow

MEASURED = Measurement(0.1, 0.09, 0.12, 40, 10, "perf_counter_ns", 1.0, 0.02, 5)
INFO = BundleInfo(
    config={"resolution": 12},
    space="handmade",
    accuracy=0.75,
    measured=MEASURED,
    predicted_ms=0.11,
    predicted_std_ms=0.01,
    extra={"seed": 3},
)


@pytest.fixture(scope="module")
def bundle(device, builds, tmp_path_factory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("out") / "b", builds["mixed"], device, INFO)


@pytest.fixture
def copy(bundle, tmp_path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def forbid_loading(monkeypatch):
    def fail(*args: object) -> None:
        raise AssertionError("loaded before the hashes were checked")

    monkeypatch.setattr("compilers.runtime.Model.__init__", fail)
    monkeypatch.setattr("compilers.isolation.Worker.request", fail)


def test_the_manifest_says_everything(bundle, builds, subnets):
    manifest = runtime.read_manifest(bundle)
    total = cost(subnets["mixed"].specs)
    assert manifest["config"] == {"resolution": 12}
    assert manifest["accuracy"] == 0.75
    assert manifest["latency"]["measured"] == MEASURED.to_json()
    assert manifest["latency"]["predicted_ms"] == 0.11
    assert manifest["cost"] == {
        "macs": total.macs, "params": total.params, "bytes": total.bytes
    }  # fmt: skip
    assert manifest["isa"] == builds["mixed"].isa
    assert manifest["versions"]["apache-tvm"]
    assert [layer["site"] for layer in manifest["layers"]] == [
        spec.site for spec in subnets["mixed"].specs
    ]
    assert {"site": "head", "kernel": "Gemm"}.items() <= next(
        record for record in manifest["kernels"] if record["site"] == "head"
    ).items()
    on_disk = {file.name for file in bundle.iterdir()}
    assert on_disk == {*manifest["files"], "manifest.json"}
    for name, entry in manifest["files"].items():
        assert entry["sha256"] == sha256_file(bundle / name)
        assert entry["bytes"] == (bundle / name).stat().st_size


def test_the_manifest_names_what_built_and_measured(device, builds, tmp_path):
    build = builds["fp32"]
    assert build.hardware == device.hardware
    assert build.versions["apache-tvm"]
    elsewhere = replace(build, hardware="Other CPU 9000", versions={"apache-tvm": "0.0.1"})
    manifest = runtime.read_manifest(
        write_bundle(tmp_path / "b", elsewhere, device, INFO, archive=False)
    )
    assert manifest["hardware"] == "Other CPU 9000"
    assert manifest["versions"]["apache-tvm"] == "0.0.1"
    assert manifest["latency"]["hardware"] == device.hardware
    found = load_bundle(tmp_path / "b")
    assert found.hardware == "Other CPU 9000"
    assert found.versions["apache-tvm"] == "0.0.1"


def test_a_bundle_is_the_subnet_four_times(bundle, subnets):
    x = np.load(bundle / "input.npy")
    expected = subnets["mixed"](torch.from_numpy(x)).detach().numpy()
    scale = np.abs(expected).max()
    allowed = runtime.read_manifest(bundle)["tolerance"]
    twin = load_subnet(bundle)(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_array_equal(twin, expected)
    onnx.checker.check_model(str(bundle / "model.onnx"), full_check=True)
    assert np.abs(run_onnx(bundle / "model.onnx", x) - expected).max() / scale <= allowed
    model, _ = runtime.load_bundle(bundle)
    logits = model(x)
    np.testing.assert_array_equal(logits, np.load(bundle / "output.npy"))
    assert np.abs(logits - expected).max() / scale <= allowed


def test_verifying_measures_again(bundle, device):
    found = verify_bundle(bundle, device)
    assert found.files == len(runtime.read_manifest(bundle)["files"])
    assert found.difference == 0
    assert found.measurement is not None
    assert found.measurement.median_ms > 0
    archive = bundle.with_name("b.tar.gz")
    assert verify_bundle(archive, device, measure=False).measurement is None


@pytest.mark.parametrize(
    "name",
    ["library.so", "subnet.safetensors", "subnet.json", "model.onnx", "input.npy", "output.npy",
     "run.py", *RUNNER_FILES],
)  # fmt: skip
def test_a_corrupt_file_is_named_before_anything_is_loaded(copy, name, monkeypatch):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    forbid_loading(monkeypatch)
    for check in (verify_bundle, load_bundle):
        with pytest.raises(BundleError, match=name):
            check(copy)
    with pytest.raises(runtime.BundleRuntimeError, match=name):
        runtime.load_bundle(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format=99), "format"),
        (lambda m: m.pop("files"), "files"),
        (lambda m: m["files"].pop("library.so"), "no recorded hash"),
        (lambda m: m["files"].update({"../x": {"sha256": ""}}), "file name"),
        (lambda m: m.update(cpu_flags=["avx9000"]), "avx9000"),
        (lambda m: m.update(library=[]), r"library is \[\]"),
        (lambda m: m.update(library="other.so"), "no recorded hash"),
        (lambda m: m.update(sample={"input": "input.npy"}), "sample is"),
        (lambda m: m.update(sample={"input": "input.npy", "output": "x"}), "no recorded hash"),
        (lambda m: m.update(input_shape="1,1,12,12"), "input_shape is"),
        (lambda m: m.update(input_shape=[1, 1, 12.5, 12]), "input_shape is"),
        (lambda m: m.update(output_tolerance="wide"), "output_tolerance is"),
        (lambda m: m.update(isa="neon"), "isa is 'neon'; expected one of avx512_vnni"),
        (lambda m: m.update(isa=["avx2"]), "isa is"),
        (lambda m: m.update(cpu_flags="avx2"), "cpu_flags is"),
        (lambda m: m.update(files=[]), "files is"),
        *(
            (lambda m, name=name: m.pop(name), f"{name} is missing")
            for name in ("library", "sample", "input_shape", "isa", "cpu_flags")
        ),
    ],
)
def test_a_manifest_that_cannot_be_trusted(copy, change, message, monkeypatch):
    manifest = json.loads((copy / "manifest.json").read_text())
    change(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    forbid_loading(monkeypatch)
    with pytest.raises(BundleError, match=message):
        verify_bundle(copy)
    with pytest.raises(runtime.BundleRuntimeError, match=message):
        runtime.load_bundle(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("layers"),
        lambda m: m.update(layers=[1]),
        lambda m: m.update(kernels=[{"site": "stem"}]),
        lambda m: m.update(tolerance=None),
    ],
)
def test_a_record_of_the_build_that_is_damaged(copy, change):
    manifest = json.loads((copy / "manifest.json").read_text())
    change(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"manifest\.json: corrupt"):
        verify_bundle(copy)


def test_known_instruction_sets_are_those_of_the_compilers():
    assert set(runtime.KNOWN_ISAS) == set(ISAS)


@pytest.mark.parametrize("content", [b"", b"\x7fELF nonsense"])
def test_a_library_that_cannot_be_loaded(copy, device, content):
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "library.so").write_bytes(content)
    manifest["files"]["library.so"]["sha256"] = sha256_file(copy / "library.so")
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="no library of a compiled subnet"):
        verify_bundle(copy, device)
    with pytest.raises(runtime.BundleRuntimeError, match="no library of a compiled subnet"):
        runtime.load_bundle(copy)


def test_a_shape_that_is_not_the_library_s(copy, device, monkeypatch):
    for name in ("TVM_USE_RUNTIME_LIB", "TVM_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # run.py sets them for its process, which is this one here
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["input_shape"] = [1, 1, 13, 13]
    np.save(copy / "input.npy", np.zeros((2, 1, 13, 13), np.float32))
    manifest["files"]["input.npy"]["sha256"] = sha256_file(copy / "input.npy")
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="refuses inputs of shape"):
        verify_bundle(copy, device)
    assert runtime.main(["--bundle", str(copy)]) == 2


def test_missing_files_and_no_bundle(copy, tmp_path):
    (copy / "model.onnx").unlink()
    with pytest.raises(BundleError, match=r"model\.onnx.*missing"):
        verify_bundle(copy)
    with pytest.raises(BundleError, match="not a bundle"):
        verify_bundle(tmp_path)
    with pytest.raises(BundleError, match="no such bundle"):
        verify_bundle(tmp_path / "nothing")


def test_a_damaged_or_unsafe_archive_is_no_bundle(bundle, tmp_path):
    path = tmp_path / "b.tar.gz"
    data = bundle.with_name("b.tar.gz").read_bytes()
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../outside"))
    hostile = path.read_bytes()
    for content in (data[: len(data) // 2], b"no gzip", b"", hostile):
        path.write_bytes(content)
        with pytest.raises(BundleError, match=r"b\.tar\.gz: not a bundle"):
            verify_bundle(path)
    assert [f.name for f in tmp_path.iterdir()] == ["b.tar.gz"]


def test_wrong_outputs_are_found(copy, device):
    manifest = json.loads((copy / "manifest.json").read_text())
    logits = np.load(copy / "output.npy")
    logits[0, 0] += 0.01 * np.abs(logits).max()
    np.save(copy / "output.npy", logits)
    manifest["files"]["output.npy"]["sha256"] = sha256_file(copy / "output.npy")
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="differ"):
        verify_bundle(copy, device, measure=False)


def test_writing_replaces_whole_and_is_deterministic(bundle, device, builds, tmp_path):
    target = tmp_path / "b"
    target.mkdir()
    (target / "left over").write_text("x")
    write_bundle(target, builds["mixed"], device, INFO)
    assert {f.name for f in target.iterdir()} == {f.name for f in bundle.iterdir()}
    assert (tmp_path / "b.tar.gz").read_bytes() == bundle.with_name("b.tar.gz").read_bytes()
    assert sorted(f.name for f in tmp_path.iterdir()) == ["b", "b.tar.gz"]


def test_a_failing_export_leaves_the_old_bundle(bundle, device, builds, tmp_path, monkeypatch):
    target = Path(shutil.copytree(bundle, tmp_path / "b"))

    def fail(*args: object) -> float:
        raise BundleError("no export today")

    shutil.copy(bundle.with_name("b.tar.gz"), tmp_path)
    monkeypatch.setattr(device, "export_onnx", fail)
    with pytest.raises(BundleError, match="no export today"):
        write_bundle(target, builds["fp32"], device, INFO)
    assert runtime.read_manifest(target)["accuracy"] == 0.75
    assert sorted(f.name for f in tmp_path.iterdir()) == ["b", "b.tar.gz"]


def test_an_old_archive_never_lies_beside_a_new_folder(
    bundle, device, builds, tmp_path, monkeypatch
):
    target = Path(shutil.copytree(bundle, tmp_path / "b"))
    shutil.copy(bundle.with_name("b.tar.gz"), tmp_path)

    def fail(*args: object, **options: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("compilers.bundle.pack_folder", fail)
    with pytest.raises(OSError, match="disk"):
        write_bundle(target, builds["fp32"], device, INFO)
    assert load_bundle(target).specs == builds["fp32"].specs
    assert not (tmp_path / "b.tar.gz").exists()
    write_bundle(target, builds["mixed"], device, INFO, archive=False)
    assert [f.name for f in tmp_path.iterdir()] == ["b"]


def test_a_bundle_runs_with_numpy_and_tvm_only(bundle, tmp_path, images):
    """In an interpreter that sees numpy and the TVM wheels, and no other package."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for module in ("numpy", "tvm", "tvm_ffi", "typing_extensions", "ml_dtypes"):
        spec = __import__("importlib.util").util.find_spec(module)
        if spec is not None and spec.origin is not None:
            origin = Path(spec.origin)
            source = origin.parent if origin.name == "__init__.py" else origin
            (packages / source.name).symlink_to(source)
            if (libraries := source.with_name(f"{module}.libs")).exists():
                (packages / libraries.name).symlink_to(libraries)
    np.save(tmp_path / "x.npy", images)

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        # -S: without the site-packages of this environment.
        return subprocess.run(
            [sys.executable, "-S", "-P", *arguments],
            capture_output=True, text=True, check=False, cwd=tmp_path,
            env={"PYTHONPATH": str(packages), "PATH": os.environ["PATH"]},
        )  # fmt: skip

    assert "No module named 'torch'" in python("-c", "import torch").stderr
    run = str(bundle / "run.py")
    assert "outputs match" in python(run).stdout
    done = python(run, "--input", "x.npy", "--output", "y.npy")
    assert (done.returncode, done.stderr) == (0, "")
    model, _ = runtime.load_bundle(bundle)
    logits = model(images)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), logits)
    np.save(tmp_path / "x.npy", images[:, :, 1:])
    failed = python(run, "--input", "x.npy")
    assert failed.returncode == 2
    assert "expected float32 [n, 1, 12, 12]" in failed.stderr
    assert "Traceback" not in failed.stderr
