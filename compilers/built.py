"""What a build leaves behind: a compiled subnet in a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compilers.errors import BuildError
from spaces.layer_spec import LayerSpec

BUILD_FILE = "build.json"
LIBRARY_FILE = "library.so"
ONNX_FILE = "model.onnx"
INPUT_FILE, OUTPUT_FILE = "input.npy", "output.npy"

CONVERSIONS = ("Quantize", "Dequantize", "Copy")
"""Templates that convert a tensor between two layers and execute none."""

_PACKAGES = ("netcarve", "apache-tvm", "apache-tvm-ffi", "torch", "numpy", "onnxruntime")


def package_version(package: str) -> str | None:
    """Version of an installed package, None when it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def build_versions() -> dict[str, str | None]:
    """Package -> version of everything that decides a build, as installed here."""
    return {name: package_version(name) for name in _PACKAGES}


def timing_input(shape: Sequence[int], dtype: str) -> NDArray[Any]:
    """The input with which latencies are measured: seeded noise from 0 to 1, or, of an integer
    `dtype`, the token 0, which every vocabulary has."""
    if dtype == "float32":
        return np.random.default_rng(0).random(shape, dtype=np.float32)
    return np.zeros(shape, dtype)


@dataclass(frozen=True, slots=True)
class KernelRecord:
    """What executes one layer.

    Attributes:
        site: The layer.
        kernel: Class of the template.
        symbol: The compiled function.
        input_dtype: `float32`, or `uint8`: then a layer with weights computes in integers.
        output_dtype: `float32` or `uint8`.
    """

    site: str
    kernel: str
    symbol: str
    input_dtype: str
    output_dtype: str


@dataclass(frozen=True, slots=True)
class Build:
    """A compiled subnet in a folder, checked against its module.

    The folder holds `library.so`, the subnet (`subnet.safetensors`, `subnet.json`), a sample
    `input.npy` with the module's `output.npy`, and `build.json` (this record).

    Attributes:
        folder: Where it lies.
        specs: The subnet's layers.
        isa: Instruction set of the library.
        threads: Threads that its kernels divide their work over.
        cpu_flags: Processor flags that the library needs.
        input_shape: [1, C, H, W].
        input_dtype: `float32`, or `int64` for tokens.
        output_shape: Shape of the module's result: [1, C], [1, T, C].
        kernels: The kernel of every call, in execution order.
        tolerance: Allowed difference of logits, relative to the largest.
        difference: The difference found on the sample input.
        seconds: Duration of lowering, compilation and linking.
        hardware: Name of the processor on which it was built and checked.
        versions: Package -> version of what built it.
        compiled: Kernels that no earlier build had compiled.
    """

    folder: Path
    specs: tuple[LayerSpec, ...]
    isa: str
    threads: int
    cpu_flags: tuple[str, ...]
    input_shape: tuple[int, ...]
    input_dtype: str
    output_shape: tuple[int, ...]
    kernels: tuple[KernelRecord, ...]
    tolerance: float
    difference: float
    seconds: float
    hardware: str
    versions: dict[str, str | None]
    compiled: int = 0

    @property
    def library(self) -> Path:
        """The shared library."""
        return self.folder / LIBRARY_FILE

    def to_json(self) -> dict[str, Any]:
        """All fields but the folder, as a JSON object."""
        data = {name: getattr(self, name) for name in self.__slots__ if name != "folder"}
        data["specs"] = [spec.to_json() for spec in self.specs]
        data["kernels"] = [asdict(record) for record in self.kernels]
        return data

    @classmethod
    def load(cls, folder: str | Path) -> Build:
        """The build in `folder`.

        Raises:
            BuildError: There is none, or its record is damaged.
        """
        path = Path(folder) / BUILD_FILE
        try:
            data = json.loads(path.read_text())
            return cls(
                **{
                    **data,
                    "folder": Path(folder),
                    "specs": tuple(map(LayerSpec.from_json, data["specs"])),
                    "kernels": tuple(KernelRecord(**record) for record in data["kernels"]),
                    "cpu_flags": tuple(data["cpu_flags"]),
                    "input_shape": tuple(data["input_shape"]),
                    "output_shape": tuple(data["output_shape"]),
                }
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BuildError(f"no readable build in {path}: {error}") from error
