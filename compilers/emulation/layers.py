"""Every tensor that a compiled subnet stores, by running its kernels under emulation."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compilers.build import link
from compilers.emulation.calls import Call, call_kernels
from compilers.emulation.qemu import Emulator
from compilers.kernel_calls import KernelGraph
from compilers.kernel_library import KernelLibrary


def stored_tensors(
    emulator: Emulator, graph: KernelGraph, kernels: KernelLibrary, x: NDArray[np.float32]
) -> list[dict[str, NDArray[np.generic]]]:
    """Name of the graph's value -> what its kernel stored, per input.

    Args:
        emulator: What executes the kernels.
        graph: The calls.
        kernels: Where compiled kernels are.
        x: Inputs [n, C, H, W].

    Raises:
        As `call_kernels`, and BuildError: the kernels cannot be linked.
    """
    isa = emulator.isa
    constants = [
        tuple(map(np.ascontiguousarray, call.kernel.constants(isa, call.params)))
        for call in graph.calls
    ]
    calls: list[Call] = []
    stored: list[dict[str, NDArray[np.generic]]] = []
    for row in x:
        values: dict[str, NDArray[np.generic]] = dict(graph.constants)
        values[graph.input] = np.ascontiguousarray(row[None])
        for call, fixed in zip(graph.calls, constants, strict=True):
            output = np.zeros(call.kernel.output_shape, call.kernel.output_dtype)
            inputs = (values[name] for name in call.inputs)
            calls.append(Call(call.kernel.symbol(isa), (*inputs, *fixed, output)))
            values[call.output] = output
        stored.append({call.output: values[call.output] for call in graph.calls})
    objects = {str(kernels.object_file(call.kernel, isa)) for call in graph.calls}
    with tempfile.TemporaryDirectory(prefix="netcarve-emulation-") as folder:
        library = Path(folder) / "kernels.so"
        link(str(library), sorted(objects), isa)
        call_kernels(emulator, library, calls)
    return stored
