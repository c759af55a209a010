"""TVM's C++ runtime for a processor: as installed here, or from wheels for another one."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from compilers.built import package_version
from compilers.errors import BuildError
from compilers.targets import Architecture
from compilers.toolchain import is_foreign

_PACKAGES = {"tvm_ffi": "apache-tvm-ffi", "tvm": "apache-tvm"}


@dataclass(frozen=True, slots=True)
class TvmRuntime:
    """Headers and libraries of TVM's two packages.

    Attributes:
        tvm_ffi: Folder of tvm_ffi: include/, lib/libtvm_ffi.so.
        tvm: Folder of tvm: lib/libtvm_runtime.so.
    """

    tvm_ffi: Path
    tvm: Path

    @property
    def include(self) -> Path:
        """Folder of the headers."""
        return self.tvm_ffi / "include"

    @property
    def libraries(self) -> tuple[Path, Path]:
        """What a program is linked with, in this order."""
        return self.tvm / "lib" / "libtvm_runtime.so", self.tvm_ffi / "lib" / "libtvm_ffi.so"


def find_runtime(architecture: Architecture, folder: str | Path | None = None) -> TvmRuntime:
    """TVM's runtime for an architecture.

    Args:
        architecture: Of the processor that it runs on.
        folder: Where the two wheels for another architecture are unpacked; it holds tvm_ffi/ and
            tvm/. None for what is installed here.

    Raises:
        BuildError: It is not there; the message says how to get it.
    """
    if folder is None and is_foreign(architecture):
        raise BuildError(
            f"TVM's runtime for {architecture} is needed: {_advice(architecture, Path('DIR'))}, "
            "and name the folder DIR"
        )
    places = {name: Path(folder) / name if folder else _installed(name) for name in _PACKAGES}
    runtime = TvmRuntime(**places)
    missing = [path for path in (*runtime.libraries, runtime.include) if not path.exists()]
    if missing:
        advice = f": {_advice(architecture, Path(folder))}" if folder else ""
        raise BuildError(f"{missing[0]}: no such file of TVM's runtime for {architecture}{advice}")
    return runtime


def _advice(architecture: Architecture, folder: Path) -> str:
    pins = " ".join(f"{name}=={package_version(name)}" for name in _PACKAGES.values())
    return (
        f"pip install --no-deps --only-binary=:all: --platform manylinux_2_28_{architecture} "
        f"--target {folder} {pins}"
    )


def _installed(name: str) -> Path:
    """Folder of an installed package, which is not imported."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise BuildError(f"the package {name} is not installed; it holds TVM's C++ runtime")
    return Path(spec.origin).parent
