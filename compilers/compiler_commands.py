"""What the compiling child process does: see `isolation.Worker`, role `compiler`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compilers.build import build_library, kernel_records
from compilers.built import INPUT_FILE, LIBRARY_FILE, OUTPUT_FILE
from compilers.check import compare, tolerance
from compilers.frontend import trace
from compilers.fusion import fuse
from compilers.graph import Graph
from compilers.kernel_library import KernelLibrary
from compilers.onnx_export import check_onnx, export_onnx
from compilers.runtime import Model
from compilers.targets import resolve_isa
from supernet.extract import Subnet, load_subnet


def build(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Compile the subnet saved in a folder, and check the binary against the module.

    Arguments: `folder` (with the subnet and `input.npy`; receives `library.so` and the module's
    `output.npy`), `isa`, `kernels` (folder of the kernel library).
    """
    start = time.perf_counter()
    folder = Path(arguments["folder"])
    isa = resolve_isa(arguments["isa"])
    x = np.load(folder / INPUT_FILE, allow_pickle=False)
    subnet, graph = _traced(folder, x.shape[1:])
    calls = fuse(graph)
    build_library(calls, isa, KernelLibrary(Path(arguments["kernels"])), folder / LIBRARY_FILE)
    seconds = time.perf_counter() - start
    with torch.inference_mode():
        expected = subnet(torch.from_numpy(x)).numpy()
    np.save(folder / OUTPUT_FILE, expected)
    allowed = tolerance(subnet.specs)
    difference = compare(Model(folder / LIBRARY_FILE)(x), expected, allowed)
    return {
        "isa": isa.name,
        "cpu_flags": sorted(isa.cpu_flags),
        "input_shape": list(graph.input_shape),
        "kernels": [asdict(record) for record in kernel_records(calls, isa)],
        "tolerance": allowed,
        "difference": difference,
        "seconds": seconds,
    }


def onnx(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Write the ONNX twin of the subnet in `folder` to `path`, and check it in ONNX Runtime."""
    folder, path = Path(arguments["folder"]), Path(arguments["path"])
    x = np.load(folder / INPUT_FILE, allow_pickle=False)
    expected = np.load(folder / OUTPUT_FILE, allow_pickle=False)
    subnet, graph = _traced(folder, x.shape[1:])
    export_onnx(graph, path)
    return {"difference": check_onnx(path, x, expected, tolerance(subnet.specs))}


def _traced(folder: Path, shape: tuple[int, ...]) -> tuple[Subnet, Graph]:
    torch.set_num_threads(1)
    subnet = load_subnet(folder)
    return subnet, trace(subnet, (1, *shape))


COMMANDS = {"build": build, "onnx": onnx}
