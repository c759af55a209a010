"""What a kernel-compiling child process does: see `isolation.Worker`, role `kernels`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compilers.build import build_library, link
from compilers.kernel_calls import KernelCall, KernelGraph
from compilers.kernel_library import KernelLibrary
from compilers.kernel_records import TileField, parse_kernel
from compilers.kernels import Gemm
from compilers.kernels.base import LayerParams
from compilers.targets import ISAS

CHAINED = Gemm(1, 8, 8)
"""A kernel that hardly takes longer than its call."""


def compile_kernel(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Compile a kernel into the library and link it alone, so that it can be timed.

    Arguments: `kernel` (as `kernel_records.describe` gives it), `isa`, `threads`, `tile` (or null
    for the rule's), `kernels` (folder of the library), `output` (the shared library to write).

    Returns:
        `compiled`: whether it was new; `symbol`; `arguments`: [shape, element type] of each tensor.
    """
    kernel = parse_kernel(arguments["kernel"])
    isa = ISAS[arguments["isa"]].with_threads(arguments["threads"])
    tile = TileField(**arguments["tile"]).tile if arguments["tile"] is not None else None
    compiled: list[str] = []
    library = KernelLibrary(
        Path(arguments["kernels"]), on_compile=lambda kernel: compiled.append(kernel.kind)
    )
    built = library.object_file(kernel, isa, tile)
    link(arguments["output"], [str(built)], isa)
    # Constants have the same shapes whatever the tile.
    types = [parameter.ty for parameter in kernel.prim_func(isa).params]
    return {
        "compiled": bool(compiled),
        "symbol": kernel.symbol(isa, tile),
        "arguments": [[[int(n) for n in type_.shape], str(type_.dtype)] for type_ in types],
    }


def chain(arguments: Mapping[str, Any]) -> None:
    """Build a library whose `main` calls `CHAINED` again and again: what the runtime adds shows.

    Arguments: `isa`, `threads`, `kernels` (folder of the library), `output` (the shared library to
    write), `length` (number of calls).
    """
    isa = ISAS[arguments["isa"]].with_threads(arguments["threads"])
    width = CHAINED.n
    params = LayerParams(np.zeros((width, width), np.float32), np.zeros(width, np.float32))
    calls = tuple(
        KernelCall(f"call{i}", CHAINED, (f"v{i}",), f"v{i + 1}", params)
        for i in range(arguments["length"])
    )
    shapes = (CHAINED.input_shape, CHAINED.output_shape)
    graph = KernelGraph("v0", shapes[0], calls, calls[-1].output, "float32", shapes[1], {})
    library = KernelLibrary(Path(arguments["kernels"]))
    build_library(graph, isa, library, Path(arguments["output"]))


COMMANDS = {"compile": compile_kernel, "chain": chain}
