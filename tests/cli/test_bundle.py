from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import threading
import venv
from pathlib import Path

import numpy as np
import pytest

from compilers.devices import LocalCpu
from search.bundles import verify
from search.host_lock import HostLock

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# What `bundle run` needs: numpy and the TVM runtime with what it imports, and Typer.
RUNTIME = ("numpy", "tvm", "tvm_ffi", "ml_dtypes", "typing_extensions")
COMMAND_LINE = (
    "typer", "rich", "pygments", "markdown_it", "mdurl", "shellingham", "annotated_doc",
    "pydantic", "pydantic_core", "annotated_types", "typing_inspection",
)  # fmt: skip


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Bin folder of a virtual environment of its own that holds netcarve and these packages."""
    environment = tmp_path_factory.mktemp("environment")
    venv.EnvBuilder(with_pip=False, system_site_packages=False, symlinks=True).create(environment)
    python = environment / "bin" / "python"
    command = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    packages = Path(done.stdout.strip())
    assert packages.is_relative_to(environment)
    for name in (*RUNTIME, *COMMAND_LINE):
        found = Path(importlib.util.find_spec(name).origin)
        source = found.parent if found.name == "__init__.py" else found
        (packages / source.name).symlink_to(source)
        if (libraries := source.with_name(f"{name}.libs")).is_dir():
            (packages / libraries.name).symlink_to(libraries)
    (packages / "netcarve.pth").write_text(f"{ROOT}\n")
    script = environment / "bin" / "netcarve"
    script.write_text(f"#!{python}\nimport sys\nfrom cli.main import main\nsys.exit(main())\n")
    script.chmod(0o755)
    return environment / "bin"


def test_run_needs_only_numpy_and_the_tvm_runtime(bare, bundle, tmp_path):
    def call(*command):
        # Nothing of the environment that runs the tests, such as PYTHONPATH, is handed on.
        return subprocess.run(
            list(map(str, command)), capture_output=True, text=True, check=False, cwd=tmp_path,
            env={"PATH": os.environ["PATH"]},
        )  # fmt: skip

    for absent in ("torch", "ray", "onnx", "sqlalchemy", "scipy", "yaml"):
        failed = call(bare / "python", "-c", f"import {absent}")
        assert f"No module named '{absent}'" in failed.stderr
    run = [bare / "netcarve", "bundle", "run", bundle, "--input", bundle / "input.npy"]
    done = call(*run, "--output", "y.npy", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    expected = np.load(bundle / "output.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected)
    printed = json.loads(done.stdout)
    assert printed["classes"] == expected.argmax(1).tolist()
    np.testing.assert_array_equal(np.float32(printed["logits"]), expected)
    (tmp_path / "bad.npy").write_text("text")
    failed = call(*run[:-1], "bad.npy")
    assert (failed.returncode, failed.stdout) == (2, "")
    assert "not a readable .npy file" in failed.stderr


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


def test_a_measurement_waits_for_the_host_and_owns_it(netcarve, bundle, monkeypatch):
    work_began, work_may_end, held = threading.Event(), threading.Event(), []

    def work():
        with HostLock().shared("other work"):
            work_began.set()
            work_may_end.wait(60)

    def time_and_look(self, builds):
        held.append([(holder.mode, holder.purpose) for holder in HostLock().holders()])
        return measure(self, builds)

    def waiting(phase, _done, _total):
        assert "other work" in phase
        work_may_end.set()

    measure = LocalCpu.time
    monkeypatch.setattr(LocalCpu, "time", time_and_look)
    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert work_began.wait(60)
        assert netcarve("bundle", "verify", bundle, "--no-measure").exit_code == 0
        assert not held
        found = verify(bundle, progress=waiting)
        assert work_may_end.is_set()
    finally:
        work_may_end.set()
        thread.join()
    assert found.measurement.median_ms > 0
    assert held == [[("exclusive", f"measuring the bundle {bundle}")]]
    assert HostLock().holders() == ()


@pytest.mark.parametrize("command", ["bundle run", "bundle verify", "bundle native", "profile"])
@pytest.mark.parametrize("name", ["library.so", "subnet.safetensors", "runner.cc", "manifest.json"])
def test_a_corrupt_bundle_is_named_and_not_loaded(netcarve, damaged, name, command):
    content = bytearray((damaged / name).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (damaged / name).write_bytes(content)
    options = ["--input", damaged / "input.npy"] if command == "bundle run" else []
    done = netcarve(*command.split(), damaged, *options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "corrupt" in done.stderr
    assert name in done.stderr


def test_native_builds_an_executable_in_the_bundle(netcarve, bundle, tmp_path):
    folder = Path(shutil.copytree(bundle, tmp_path / "subnet"))
    done = netcarve("bundle", "native", folder, "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    executable = Path(found["executable"])
    assert executable == folder / "native" / "run"
    assert found["bytes"] == sum(file.stat().st_size for file in executable.parent.iterdir())
    command = [executable, "--input", bundle / "input.npy", "--output", tmp_path / "y.npy"]
    subprocess.run(command, env={}, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.load(bundle / "output.npy"))
    assert netcarve("bundle", "verify", folder, "--no-measure").exit_code == 0


def test_native_without_a_compiler_is_one_clear_error(netcarve, bundle):
    done = netcarve("bundle", "native", bundle, "--compiler", "no-such-compiler")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: there is no compiler 'no-such-compiler'")
    assert done.stderr.count("\n") == 1
    assert not (bundle / "native").exists()


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
