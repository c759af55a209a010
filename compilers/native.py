"""Native deployment: a bundle's runner, built into an executable that needs no Python.

The sources and the script that builds them lie in the bundle, under its hashes. The executable's
folder holds all that it needs: TVM's C++ runtime, the compiled subnet and its manifest.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from compilers.built import LIBRARY_FILE
from compilers.bundle import RUNNER_FILES, RUNNER_SCRIPT, checked_manifest
from compilers.errors import BuildError, BundleError
from compilers.runtime import MANIFEST, BundleRuntimeError, check_cpu, compare, load_array
from spaces.errors import ConfigError
from spaces.files import atomic_directory

BESIDE = (LIBRARY_FILE, MANIFEST, "libtvm_ffi.so", "libtvm_runtime.so")
"""What lies beside the executable."""

RUN_TIMEOUT = 600.0
_LONGEST = 1500


def build_native(
    bundle: str | Path, output: str | Path | None = None, compiler: str = "g++"
) -> Path:
    """Build the runner of a bundle; its hashes are checked before anything of it is used.

    Where this processor executes the bundle, the runner must give the sample's output.

    Args:
        bundle: The bundle's folder.
        output: The executable; `native/run` in the bundle when None. Its folder is replaced whole.
        compiler: A C++17 compiler, by name or path.

    Returns:
        The executable.

    Raises:
        BundleError: The bundle is missing or corrupt, or holds no runner.
        ConfigError: The executable's folder holds other files, or is the working directory.
        BuildError: The compiler or TVM's runtime is missing, the build failed, or what was built
            does not give the sample's output.
    """
    folder = Path(bundle).resolve()
    manifest = checked_manifest(folder)
    if not set(RUNNER_FILES) <= set(manifest["files"]):
        raise BundleError(
            f"{bundle}: holds no sources of a runner; export the bundle again, to another folder"
        )
    found = shutil.which(compiler)
    if found is None:
        raise BuildError(
            f"there is no compiler {compiler!r}; install one (for example: apt-get install g++) "
            "or name another one"
        )
    target = folder / "native" / "run" if output is None else Path(output).resolve()
    _check_target(target)
    command = ["sh", str(folder / RUNNER_SCRIPT), "--compiler", found]
    command += ["--tvm-ffi", str(_package("tvm_ffi")), "--tvm", str(_package("tvm"))]
    with atomic_directory(target.parent) as staged:
        command += ["--output", str(staged / target.name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = done.stderr.strip()[-_LONGEST:]
            raise BuildError(f"{compiler} could not build the runner of {bundle}: {said}")
        try:
            _check_output(staged / target.name, folder, manifest)
        except (BundleRuntimeError, subprocess.TimeoutExpired) as error:
            raise BuildError(f"the runner of {bundle} was built, but fails: {error}") from error
    return target


def _check_output(executable: Path, bundle: Path, manifest: dict[str, Any]) -> None:
    """Compare the sample's output, unless the bundle was compiled for another processor."""
    try:
        check_cpu(manifest)
    except BundleRuntimeError:
        return
    sample = manifest["sample"]
    with tempfile.TemporaryDirectory(prefix="netcarve-run-") as scratch:
        returned = Path(scratch) / "y.npy"
        command = [executable, "--input", bundle / sample["input"], "--output", returned]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=RUN_TIMEOUT
        )
        if done.returncode != 0:
            said = done.stderr.strip()[-_LONGEST:] or "no message"
            raise BundleRuntimeError(f"it ended with status {done.returncode}: {said}")
        expected = load_array(bundle / sample["output"])
        compare(load_array(returned), expected, manifest["output_tolerance"])


def _check_target(target: Path) -> None:
    """Make sure that nothing of the user's is lost when the executable's folder is replaced."""
    folder = target.parent
    if target.name in BESIDE or target.is_dir():
        raise ConfigError(
            f"the executable cannot be {target}; allowed: a file in a folder of its own, "
            f"and none of the names {', '.join(BESIDE)}"
        )
    if not folder.exists():
        return
    if folder == Path.cwd():
        raise ConfigError(
            f"the executable's folder would be the working directory, {folder}; allowed: "
            "a folder of its own, which is replaced whole"
        )
    others = {path.name for path in folder.iterdir()} - {target.name, *BESIDE}
    if others:
        raise ConfigError(
            f"the executable's folder {folder} holds {min(others)!r}; allowed: "
            "a folder of its own, which is replaced whole"
        )


def _package(name: str) -> Path:
    """Folder of an installed package, which is not imported."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise BuildError(f"the package {name} is not installed; it holds TVM's C++ runtime")
    return Path(spec.origin).parent
