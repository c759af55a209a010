"""What the compiling child process does: see `isolation.Worker`, role `compiler`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from compilers.build import build_library, kernel_records
from compilers.built import INPUT_FILE, LIBRARY_FILE, OUTPUT_FILE
from compilers.check import LayerCheck, compare, tolerance
from compilers.emulation.layers import stored_tensors
from compilers.emulation.qemu import Emulator
from compilers.emulation.runner import EmulatedRunner
from compilers.errors import MismatchError
from compilers.frontend import trace
from compilers.fusion import fuse
from compilers.graph import Graph
from compilers.kernel_library import KernelLibrary
from compilers.onnx_export import check_onnx, export_onnx
from compilers.peaks import measure_roofline
from compilers.probe import probe, write_trials
from compilers.runtime import Model
from compilers.targets import Isa, find_isa, resolve_isa
from compilers.tvm_runtime import find_runtime
from spaces.files import sha256_file
from spaces.layer_spec import Operator
from supernet.extract import SPECS_FILE, WEIGHTS_FILE, Subnet, load_subnet

CHECKED = 4
"""Sample inputs whose every stored tensor is compared after a build."""

Stored = tuple[NDArray[np.generic], Mapping[str, NDArray[np.generic]]]
"""The output of one inference [1, classes], and by name every tensor that it stored."""

ONNX_INPUTS = 16
"""Random inputs that check an ONNX twin beside the sample inputs."""


_LAST: dict[tuple[str, str, tuple[int, ...]], Graph] = {}


def build(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Compile the subnet saved in a folder, and check the binary against the module.

    Arguments: `folder` (with the subnet and `input.npy`; receives `library.so` and the module's
    `output.npy`), `isa`, `threads`, `kernels` (folder of the kernel library). With `emulation`
    (`cache`, `runtime`; see `Emulator` and `find_runtime`) an emulated CPU executes the binary.
    """
    start = time.perf_counter()
    folder = Path(arguments["folder"])
    isa = _isa(arguments)
    x = np.load(folder / INPUT_FILE, allow_pickle=False)
    subnet, graph = _traced(folder, x.shape[1:])
    calls = fuse(graph)
    compiled: list[str] = []
    kernels = KernelLibrary(
        Path(arguments["kernels"]), on_compile=lambda kernel: compiled.append(kernel.kind)
    )
    build_library(calls, isa, kernels, folder / LIBRARY_FILE)
    seconds = time.perf_counter() - start
    with torch.inference_mode():
        expected = subnet(torch.from_numpy(x)).numpy()
    np.save(folder / OUTPUT_FILE, expected)
    allowed = tolerance(subnet.specs)
    if emulation := arguments.get("emulation"):
        emulator = Emulator(isa, Path(emulation["cache"]))
        runtime = find_runtime(isa.architecture, emulation["runtime"])
        logits = EmulatedRunner(emulator, runtime)(folder / LIBRARY_FILE, x, calls.output_shape)
        difference = compare(logits, expected, allowed)
        stored = stored_tensors(emulator, calls, kernels, x[:CHECKED])
        check_stored(graph, ((one[calls.output], one) for one in stored), x, logits)
    else:
        logits = Model(folder / LIBRARY_FILE)(x)
        difference = compare(logits, expected, allowed)
        watched = [call.output for call in calls.calls]
        with tempfile.TemporaryDirectory(prefix="netcarve-check-") as scratch:
            build_library(calls, isa, kernels, Path(scratch) / LIBRARY_FILE, watched)
            model = Model(Path(scratch) / LIBRARY_FILE)
        check_layers(model, graph, watched, x[:CHECKED], logits)
    return {
        "isa": isa.name,
        "threads": isa.threads,
        "cpu_flags": sorted(isa.cpu_flags),
        "input_shape": list(graph.input_shape),
        "input_dtype": graph.input_dtype,
        "output_shape": list(calls.output_shape),
        "kernels": [asdict(record) for record in kernel_records(calls, isa, kernels)],
        "tolerance": allowed,
        "difference": difference,
        "seconds": seconds,
        "compiled": len(compiled),
    }


def check_layers(
    model: Model,
    graph: Graph,
    watched: Sequence[str],
    x: NDArray[Any],
    logits: NDArray[np.float32],
) -> LayerCheck:
    """Check a library that returns its logits, then every tensor that it stores.

    Raises:
        MismatchError: A kernel differs from the module, or the logits from the library without
            `watched`, which calls the same kernels.
    """

    def stored() -> Iterator[Stored]:
        for i in range(len(x)):
            output, *tensors = (t.numpy() for t in model.main(model.tensor(x[i : i + 1])))
            yield output, dict(zip(watched, tensors, strict=True))

    return check_stored(graph, stored(), x, logits)


def check_stored(
    graph: Graph, stored: Iterable[Stored], x: NDArray[np.float32], logits: NDArray[np.float32]
) -> LayerCheck:
    """Check the logits and every tensor that kernels stored, one input after the other.

    Raises:
        MismatchError: As `check_layers`.
    """
    check = LayerCheck(graph)
    for i, (output, tensors) in enumerate(stored):
        if not np.array_equal(output.ravel(), logits[i].ravel()):
            raise MismatchError("the same kernels gave different logits in two libraries")
        check(x[i : i + 1], tensors)
    return check


def onnx(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Write the ONNX twin of the subnet in `folder` to `path`, and check it in ONNX Runtime."""
    folder, path = Path(arguments["folder"]), Path(arguments["path"])
    x = np.load(folder / INPUT_FILE, allow_pickle=False)
    noise = np.random.default_rng(0).random((ONNX_INPUTS, *x.shape[1:]), dtype=np.float32)
    x = np.concatenate([x, noise])
    subnet, graph = _traced(folder, x.shape[1:])
    with torch.inference_mode():
        expected = subnet(torch.from_numpy(x)).numpy()
    export_onnx(graph, path)
    return {"difference": check_onnx(path, x, expected, tolerance(subnet.specs))}


def _traced(folder: Path, shape: tuple[int, ...]) -> tuple[Subnet, Graph]:
    """The subnet saved in `folder` and its graph; the last graph is kept, because a subnet is built
    for several devices one after the other."""
    torch.set_num_threads(1)
    subnet = load_subnet(folder)
    key = (sha256_file(folder / WEIGHTS_FILE), sha256_file(folder / SPECS_FILE), shape)
    if key not in _LAST:
        graph = trace(subnet, (1, *shape))
        _LAST.clear()
        _LAST[key] = graph
    return subnet, _LAST[key]


def probe_kernels(arguments: Mapping[str, Any]) -> None:
    """Run the kernels of one `operator` in one `scheme` on `isa` with `threads`; an error if they
    are wrong."""
    probe(Operator(arguments["operator"]), arguments["scheme"], _isa(arguments))


def trials(arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Write the kernels of one `operator` in one `scheme` for `isa` with `threads` to `folder`, to
    be run elsewhere; compiled ones are kept in `kernels`."""
    return write_trials(
        Operator(arguments["operator"]),
        arguments["scheme"],
        _isa(arguments),
        KernelLibrary(Path(arguments["kernels"])),
        Path(arguments["folder"]),
    )


def _isa(arguments: Mapping[str, Any]) -> Isa:
    find = find_isa if "emulation" in arguments else resolve_isa
    return find(arguments["isa"]).with_threads(arguments["threads"])


def roofline(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Measure the peaks of the processor that this child is pinned to, on `isa`."""
    return measure_roofline(resolve_isa(arguments["isa"])).to_json()


COMMANDS = {
    "build": build,
    "onnx": onnx,
    "probe": probe_kernels,
    "trials": trials,
    "roofline": roofline,
}
