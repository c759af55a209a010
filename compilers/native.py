"""Native deployment: a bundle's runner, built into an executable that needs no Python.

The sources and the script that builds them lie in the bundle, under its hashes. The executable's
folder holds all that it needs: TVM's C++ runtime, the compiled subnet and its manifest.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from compilers.built import LIBRARY_FILE
from compilers.bundle import RUNNER_FILES, RUNNER_SCRIPT, checked_manifest
from compilers.emulation.qemu import Emulator
from compilers.errors import BuildError, BundleError, CompilerError, DeviceError
from compilers.runtime import MANIFEST, BundleRuntimeError, check_cpu, compare, load_array
from compilers.targets import Isa, find_isa
from compilers.toolchain import find_tool, is_foreign
from compilers.tvm_runtime import find_runtime
from spaces.cache import default_cache
from spaces.errors import ConfigError
from spaces.files import atomic_directory

BESIDE = (LIBRARY_FILE, MANIFEST, "libtvm_ffi.so", "libtvm_runtime.so")
"""What lies beside the executable."""

RUN_TIMEOUT = 600.0
_LONGEST = 1500


def build_native(
    bundle: str | Path,
    output: str | Path | None = None,
    compiler: str | None = None,
    runtime: str | Path | None = None,
) -> Path:
    """Build the runner of a bundle; its hashes are checked before anything of it is used.

    Where this processor executes the bundle, or qemu-user emulates one that does, the runner must
    give the sample's output.

    Args:
        bundle: The bundle's folder.
        output: The executable; `native/run` in the bundle when None. Its folder is replaced whole.
        compiler: A C++17 compiler for the bundle's architecture, by name or path; GCC when None.
        runtime: Folder of unpacked wheels for that architecture; see `find_runtime`.

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
    isa = find_isa(manifest["isa"])
    if compiler is None:
        _, found = find_tool(isa.architecture, "compiler", ("g++",))
    elif (path := shutil.which(compiler)) is not None:
        found = path
    else:
        raise BuildError(f"there is no compiler {compiler!r}; install it, or name another one")
    packages = find_runtime(isa.architecture, runtime)
    target = folder / "native" / "run" if output is None else Path(output).resolve()
    _check_target(target)
    command = ["sh", str(folder / RUNNER_SCRIPT), "--compiler", found]
    command += ["--tvm-ffi", str(packages.tvm_ffi), "--tvm", str(packages.tvm)]
    with atomic_directory(target.parent) as staged:
        command += ["--output", str(staged / target.name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = done.stderr.strip()[-_LONGEST:]
            raise BuildError(f"{found} could not build the runner of {bundle}: {said}")
        try:
            _check_output(staged / target.name, folder, manifest, isa)
        except (BundleRuntimeError, CompilerError, subprocess.TimeoutExpired) as error:
            raise BuildError(f"the runner of {bundle} was built, but fails: {error}") from error
    return target


def _check_output(executable: Path, bundle: Path, manifest: dict[str, Any], isa: Isa) -> None:
    """Compare the sample's output, unless the bundle is for a processor that is not here, and
    cannot be emulated either."""
    emulator = None
    try:
        if is_foreign(isa.architecture):
            emulator = Emulator(isa, default_cache())
        else:
            check_cpu(manifest)
    except (BundleRuntimeError, DeviceError):
        return
    sample = manifest["sample"]
    with tempfile.TemporaryDirectory(prefix="netcarve-run-") as scratch:
        returned = Path(scratch) / "y.npy"
        arguments: list[str | Path] = ["--input", bundle / sample["input"], "--output", returned]
        if emulator is not None:
            emulator.run(executable, arguments)
        else:
            _run(executable, arguments)
        expected = load_array(bundle / sample["output"])
        compare(load_array(returned), expected, manifest["output_tolerance"])


def _run(executable: Path, arguments: list[str | Path]) -> None:
    done = subprocess.run(
        [executable, *arguments], capture_output=True, text=True, check=False, timeout=RUN_TIMEOUT
    )
    if done.returncode != 0:
        said = done.stderr.strip()[-_LONGEST:] or "no message"
        raise BundleRuntimeError(f"it ended with status {done.returncode}: {said}")


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
