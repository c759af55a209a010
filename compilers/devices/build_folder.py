"""What devices that build on this host share: the folder of a build, and runs through files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compilers.built import BUILD_FILE, INPUT_FILE, Build, build_versions
from compilers.errors import MeasurementError
from compilers.host import processor_name
from compilers.isolation import Worker
from spaces.files import atomic_directory, atomic_write_text
from spaces.layer_spec import LayerSpec

if TYPE_CHECKING:
    from supernet.extract import Subnet

SAMPLES = 8
"""Inputs of the check after a build when the caller gives none."""

TWIN_TIMEOUT = 600.0
"""Seconds that writing and checking an ONNX twin may take."""


def write_build(
    subnet: Subnet,
    specs: Sequence[LayerSpec],
    out_dir: str | Path,
    sample: NDArray[np.float32] | None,
    compile_: Callable[[Path], Mapping[str, Any]],
) -> Build:
    """Write a build whole or not at all.

    Args:
        subnet: The extracted module.
        specs: Its layers.
        out_dir: Receives the build, and is replaced.
        sample: Inputs [n, C, R, R] float32; seeded noise when None.
        compile_: Told the folder, which holds the subnet and the sample: adds what the device
            runs, and returns the fields of `Build` that it knows.
    """
    from supernet.extract import save_subnet

    if sample is None:
        shape = (SAMPLES, specs[0].in_channels, specs[0].in_size, specs[0].in_size)
        sample = np.random.default_rng(0).random(shape, dtype=np.float32)
    with atomic_directory(out_dir) as folder:
        save_subnet(subnet, folder)
        np.save(folder / INPUT_FILE, np.ascontiguousarray(sample, np.float32))
        report = {
            "hardware": processor_name(),
            **compile_(folder),
            "specs": [spec.to_json() for spec in specs],
            "versions": build_versions(),
        }
        atomic_write_text(folder / BUILD_FILE, json.dumps(report, indent=1))
    return Build.load(out_dir)


def run_through_files(
    build: Build, x: NDArray[Any], execute: Callable[[Mapping[str, str]], object]
) -> NDArray[np.float32]:
    """Results that a child writes to the file `output` for the inputs in the file `input`.

    Raises:
        MeasurementError: The inputs are of another kind than the build's, such as float32 for
            tokens.
    """
    if not np.can_cast(x.dtype, build.input_dtype, "same_kind"):
        raise MeasurementError(f"inputs are {x.dtype}; the build takes {build.input_dtype}")
    with tempfile.TemporaryDirectory(prefix="netcarve-run-") as folder:
        files = {name: str(Path(folder) / f"{name}.npy") for name in ("input", "output")}
        np.save(files["input"], np.ascontiguousarray(x, build.input_dtype))
        execute(files)
        logits: NDArray[np.float32] = np.load(files["output"], allow_pickle=False)
        return logits


def write_onnx_twin(compiler: Worker, folder: Path, path: str | Path) -> float:
    """Write the ONNX twin of the subnet in `folder` to `path`, in a child of kind `compiler`.

    Returns:
        Largest difference from the module's sample output, relative to its largest logit.

    Raises:
        BuildError: The child failed, or took longer than `TWIN_TIMEOUT`.
    """
    request = {"folder": str(folder), "path": str(path)}
    return float(compiler.request("onnx", request, TWIN_TIMEOUT)["difference"])
