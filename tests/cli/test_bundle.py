from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.slow

# Everything that `bundle run` must do without: an import of any of them fails.
_ALONE = """
import sys
WITHOUT = {"torch", "ray", "optuna", "sqlalchemy", "alembic", "onnx", "onnxruntime", "sklearn",
           "scipy", "matplotlib", "safetensors", "fsspec", "yaml", "search", "supernet",
           "predictors"}
class Without:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in WITHOUT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Without())
from cli.main import main
main()
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle of a stem, a pool and a classifier with random weights."""
    import torch

    from compilers.bundle import BundleInfo, write_bundle
    from compilers.devices import DeviceConfig, LocalCpu
    from spaces import Activation, LayerSpec, Operator, tensor_layout
    from supernet.extract import subnet_from_tensors

    specs = (
        LayerSpec("stem", Operator.CONV, 1, 16, 12, 6, 3, 2, activation=Activation.HARDSWISH),
        LayerSpec("pool", Operator.GLOBAL_POOL, 16, 16, 6, 1),
        LayerSpec("classifier", Operator.LINEAR, 16, 10),
    )
    torch.manual_seed(0)
    layout = {name: shape for spec in specs for name, (_, shape) in tensor_layout(spec).items()}
    subnet = subnet_from_tensors(specs, {name: torch.randn(s) for name, s in layout.items()})
    folder = tmp_path_factory.mktemp("bundle")
    with LocalCpu(DeviceConfig(name="cpu"), folder / "cache") as device:
        build = device.build(subnet, specs, folder / "build")
        return write_bundle(folder / "subnet", build, device, BundleInfo({"a": 1}, "test", 0.5))


@pytest.fixture
def damaged(bundle, tmp_path):
    """A copy of the bundle; `damage` one of its files."""
    folder = tmp_path / "damaged"
    shutil.copytree(bundle, folder)
    return folder


def test_run_needs_only_numpy_and_the_tvm_runtime(bundle, tmp_path):
    output = tmp_path / "y.npy"
    command = [sys.executable, "-c", _ALONE, "bundle", "run", str(bundle)]
    command += ["--input", str(bundle / "input.npy"), "--output", str(output), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = np.load(bundle / "output.npy")
    np.testing.assert_allclose(np.load(output), expected, rtol=1e-4, atol=1e-5)
    printed = json.loads(done.stdout)
    assert printed["classes"] == expected.argmax(1).tolist()
    np.testing.assert_array_equal(np.float32(printed["logits"]), np.load(output))


def test_run_prints_a_line_for_each_input(netcarve, bundle):
    done = netcarve("bundle", "run", bundle, "--input", bundle / "input.npy")
    expected = np.load(bundle / "output.npy").argmax(1)
    classes = [int(line.split()[3].rstrip(",")) for line in done.stdout.splitlines()]
    assert classes == expected.tolist()


def test_verify_checks_and_measures(netcarve, bundle):
    done = netcarve("bundle", "verify", bundle, "--json")
    assert done.exit_code == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["files"] == len(list(bundle.iterdir())) - 1
    assert data["difference"] < 1e-4
    assert data["measurement"]["median_ms"] > 0
    text = netcarve("bundle", "verify", f"{bundle}.tar.gz", "--no-measure").stdout
    assert "files match" in text
    assert "ms" not in text


@pytest.mark.parametrize("command", ["run", "verify"])
@pytest.mark.parametrize("name", ["library.so", "subnet.safetensors", "manifest.json"])
def test_a_corrupt_bundle_is_named_and_not_loaded(netcarve, damaged, name, command):
    content = bytearray((damaged / name).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (damaged / name).write_bytes(content)
    options = ["--input", damaged / "input.npy"] if command == "run" else []
    done = netcarve("bundle", command, damaged, *options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "corrupt" in done.stderr
    assert name in done.stderr


def test_what_is_no_bundle_or_no_input(netcarve, bundle, tmp_path):
    cases = [
        (tmp_path, bundle / "input.npy", "not a bundle"),
        (bundle, tmp_path / "none.npy", "none.npy"),
        (bundle, bundle / "subnet.json", "not a readable .npy file"),
    ]
    np.save(tmp_path / "wide.npy", np.zeros((1, 1, 13, 13), np.float32))
    cases.append((bundle, tmp_path / "wide.npy", "expected float32 [n, 1, 12, 12]"))
    for folder, given, message in cases:
        done = netcarve("bundle", "run", folder, "--input", given)
        assert (done.exit_code, done.stdout) == (2, "")
        assert message in done.stderr


def test_the_folder_of_the_output_is_made_where_that_is_possible(netcarve, bundle, tmp_path):
    given = ["bundle", "run", bundle, "--input", bundle / "input.npy", "--output"]
    assert netcarve(*given, tmp_path / "new" / "y.npy").exit_code == 0
    assert np.load(tmp_path / "new" / "y.npy").shape[1] == 10
    (tmp_path / "file").touch()
    for impossible in (tmp_path / "file" / "y.npy", tmp_path / "new"):
        done = netcarve(*given, impossible)
        assert (done.exit_code, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")
