"""Building the native runner of a bundle."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import compilers
from compilers.bundle import RUNNER_FILES, verify_bundle
from compilers.errors import BuildError, BundleError
from compilers.native import BESIDE, build_native
from spaces.errors import ConfigError
from spaces.files import sha256_file
from tests.compilers.native_runner import call, change_manifest, npy

# Everything here needs compiled subnets.
pytestmark = pytest.mark.slow

PACKAGES = {name: Path(importlib.util.find_spec(name).origin).parent for name in ("tvm", "tvm_ffi")}


@pytest.fixture
def copy(mixed_bundle, tmp_path):
    return Path(shutil.copytree(mixed_bundle, tmp_path / "copy"))


@pytest.fixture
def script(tmp_path):
    """Write a script that stands in the compiler's place."""

    def write(text):
        path = tmp_path / f"compiler{len(list(tmp_path.glob('compiler*')))}"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    return write


@pytest.fixture
def ready(script, executable):
    """A compiler that takes no time: it has compiled the runner before."""
    return script(f'while [ "$1" != -o ]; do shift; done; cp \'{executable}\' "$2"')


def replace_file(folder, name, content):
    """Replace a file of a bundle and its hash."""
    (folder / name).write_bytes(content)
    change_manifest(folder, lambda m: m["files"][name].update(sha256=sha256_file(folder / name)))


def test_every_source_is_in_the_bundle_and_hashed(mixed_bundle):
    sources = Path(compilers.__file__).parent / "runner"
    assert {path.name for path in sources.iterdir()} == set(RUNNER_FILES)
    hashes = json.loads((mixed_bundle / "manifest.json").read_text())["files"]
    for name in RUNNER_FILES:
        assert hashes[name]["sha256"] == sha256_file(sources / name)


def test_the_folder_is_all_that_the_executable_needs(executable):
    folder = executable.parent
    assert {path.name for path in folder.iterdir()} == {"net", *BESIDE}
    loaded = call(executable, LD_TRACE_LOADED_OBJECTS="1").stdout
    assert "not found" not in loaded
    assert "python" not in loaded
    for name in ("libtvm_ffi.so", "libtvm_runtime.so"):
        assert re.search(rf"{name} => {re.escape(str(folder))}/{name} ", loaded)


@pytest.mark.parametrize("name", ["library.so", "runner.cc", "npy.h", "build_runner.sh"])
def test_a_tampered_bundle_is_refused_before_anything_is_compiled(copy, tmp_path, script, name):
    with (copy / name).open("ab") as file:
        file.write(b"\n")
    compiler = script(f"touch '{tmp_path}/compiled'")
    with pytest.raises(BundleError, match=rf"{name}: corrupt"):
        build_native(copy, tmp_path / "new" / "run", compiler)
    assert not (tmp_path / "compiled").exists()
    assert not (tmp_path / "new").exists()


def test_a_bundle_without_a_runner(copy):
    change_manifest(copy, lambda m: m["files"].pop("runner.cc"))
    with pytest.raises(BundleError, match="holds no sources of a runner"):
        build_native(copy)


def test_a_build_that_fails_keeps_the_one_before(copy, ready, script):
    built = build_native(copy, compiler=ready)
    assert built == copy / "native" / "run"
    assert {path.name for path in built.parent.iterdir()} == {"run", *BESIDE}
    before = {path: path.stat().st_ino for path in copy.rglob("*")}
    with pytest.raises(BuildError, match="there is no compiler 'no-such-compiler'"):
        build_native(copy, compiler="no-such-compiler")
    with pytest.raises(BuildError, match=r"could not build .*out of registers"):
        build_native(copy, compiler=script("echo out of registers >&2; exit 1"))
    assert {path: path.stat().st_ino for path in copy.rglob("*")} == before
    assert verify_bundle(copy, measure=False).difference == 0


def test_an_executable_that_is_wrong_is_not_kept(copy, ready, script):
    with pytest.raises(BuildError, match="was built, but fails: it ended with status 3: no luck"):
        build_native(
            copy,
            compiler=script(
                'while [ "$1" != -o ]; do shift; done\n'
                'printf \'#!/bin/sh\\necho no luck >&2; exit 3\' >"$2"; chmod +x "$2"'
            ),
        )
    replace_file(copy, "output.npy", npy(np.load(copy / "output.npy") * 1.01))
    with pytest.raises(BuildError, match="was built, but fails: outputs differ"):
        build_native(copy, compiler=ready)
    assert not (copy / "native").exists()


def test_a_bundle_for_another_processor_is_built_all_the_same(copy, ready):
    change_manifest(copy, lambda m: m.update(cpu_flags=["avx9000"]))
    done = call(build_native(copy, compiler=ready), "--input", copy / "input.npy")
    assert done.returncode == 2
    assert "this CPU lacks avx9000" in done.stderr


def test_nothing_of_the_user_s_is_replaced(copy, ready, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("keep")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for output in (
        tmp_path / "mine" / "run",
        tmp_path / "mine",
        copy / "run",
        "run",
        tmp_path / "new" / "library.so",
    ):
        with pytest.raises(ConfigError, match="allowed: a f"):
            build_native(copy, output, ready)
    assert (tmp_path / "mine" / "notes").read_text() == "keep"
    assert list((tmp_path / "empty").iterdir()) == []
    assert not (tmp_path / "new").exists()


def test_the_script_in_the_bundle_works_alone(mixed_bundle, tmp_path):
    folder = Path(shutil.copytree(mixed_bundle, tmp_path / "a bundle"))
    script = ["sh", folder / "build_runner.sh"]
    environment = {
        "PATH": "/usr/bin:/bin",
        "TVM_DIR": str(PACKAGES["tvm"]),
        "TVM_FFI_DIR": str(PACKAGES["tvm_ffi"]),
    }

    def build(*arguments, **changes):
        return subprocess.run(
            [*script, *arguments], env=environment | changes, cwd=tmp_path,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    for arguments, changes, message in [
        ([], {"TVM_DIR": ""}, "--tvm or TVM_DIR must name the folder"),
        (["--tvm-ffi", "/nowhere"], {}, "/nowhere/include/tvm/ffi/extra/module.h: no such file"),
        ([], {"CXX": "no-such-compiler"}, "no compiler 'no-such-compiler'"),
        (["--colour"], {}, "unknown argument --colour"),
        (["--output"], {}, "--output needs a value"),
    ]:
        failed = build(*arguments, **changes)
        assert (failed.returncode, failed.stdout) == (2, "")
        assert failed.stderr.startswith("error: ")
        assert message in failed.stderr
    failed = build(CXX="false")
    assert failed.returncode == 1
    assert not list(folder.rglob("*run"))
    done = build("--compiler", "c++")
    assert (done.returncode, done.stderr) == (0, "")
    native = folder / "native"
    assert {path.name for path in native.iterdir()} == {"run", *BESIDE}
    done = call(
        native / "run", "--input", mixed_bundle / "input.npy", "--output", tmp_path / "y.npy"
    )
    assert (done.returncode, done.stderr) == (0, "")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.load(mixed_bundle / "output.npy"))
