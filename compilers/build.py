"""From kernel calls to a library: a Relax `main` of external calls, linked with cached objects.

Only bytecode is generated here. Every kernel was compiled once into an object file of the kernel
library; a subnet whose kernels are known builds by emitting bytecode and linking. The library is
a deterministic function of the subnet, the versions and the chosen register tiles: no build id, no
paths, no symbol table.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compilers.built import KernelRecord
from compilers.errors import BuildError
from compilers.kernel_calls import KernelGraph
from compilers.kernel_library import KernelLibrary
from compilers.toolchain import find_tool

if TYPE_CHECKING:
    from compilers.kernels.base import Kernel
    from compilers.targets import Isa

LINKERS = ("ld", "g++", "c++", "gcc", "cc", "clang")
_ANCHOR = "netcarve_anchor"


def kernel_records(
    graph: KernelGraph, isa: Isa, kernels: KernelLibrary
) -> tuple[KernelRecord, ...]:
    """One record per kernel call, in execution order, of a library built with `kernels`."""
    return tuple(
        KernelRecord(
            site=call.site,
            kernel=type(call.kernel).__name__,
            symbol=_symbol(call.kernel, isa, kernels),
            input_dtype=call.kernel.input_dtype,
            output_dtype=call.kernel.output_dtype,
        )
        for call in graph.calls
    )


def build_library(
    graph: KernelGraph,
    isa: Isa,
    kernels: KernelLibrary,
    path: Path,
    watch: Sequence[str] = (),
) -> None:
    """Write the shared library of `graph` to `path`.

    Args:
        graph: What to execute.
        isa: Instruction set of the kernels.
        kernels: Where compiled kernels are cached, and register tiles chosen; missing kernels are
            compiled now.
        path: The library: `main(x)` returns the output, [rows, columns].
        watch: Names of tensors that `main` returns after its output, `[rows, columns]` each.

    Raises:
        BuildError: No linker was found, or it failed.
    """
    distinct = {_symbol(call.kernel, isa, kernels): call.kernel for call in graph.calls}
    objects = [
        kernels.object_file(kernel, isa, kernels.tile(kernel, isa))
        for _, kernel in sorted(distinct.items())
    ]
    executable = _compile(_relax_module(graph, isa, kernels, watch), isa)
    with tempfile.TemporaryDirectory(prefix="netcarve-link-") as folder:
        executable.export_library(
            str(path),
            fcompile=linker(isa),
            addons=list(map(str, objects)),
            workspace_dir=folder,
        )


def _symbol(kernel: Kernel, isa: Isa, kernels: KernelLibrary) -> str:
    return kernel.symbol(isa, kernels.tile(kernel, isa))


def _relax_module(
    graph: KernelGraph, isa: Isa, kernels: KernelLibrary, watch: Sequence[str]
) -> Any:
    from tvm import relax
    from tvm.relax import TensorType

    builder = relax.BlockBuilder()
    x = relax.Var("x", TensorType(graph.input_shape, graph.input_dtype))
    values = {name: relax.const(array) for name, array in graph.constants.items()}
    values[graph.input] = x
    with builder.function("main", [x]):
        with builder.dataflow():
            for call in graph.calls:
                constants = call.kernel.constants(isa, call.params)
                arguments = [values[name] for name in call.inputs]
                arguments += [relax.const(np.ascontiguousarray(array)) for array in constants]
                out = TensorType(call.kernel.output_shape, call.kernel.output_dtype)
                values[call.output] = builder.emit(
                    relax.call_dps_packed(_symbol(call.kernel, isa, kernels), arguments, out)
                )
            results = [values[name] for name in (graph.output, *watch)]
            result = builder.emit_output(relax.Tuple(results) if watch else results[0])
        builder.emit_func_output(result)
    # The executable needs one compiled function to become a host library.
    builder.add_func(_anchor(), _ANCHOR)
    return builder.finalize()


def _anchor() -> Any:
    from tvm import tirx

    buffer = tirx.decl_buffer((1,), "float32", name="x")
    body = tirx.BufferStore(buffer, tirx.const(0.0, "float32"), [0])
    return tirx.PrimFunc([buffer], body).with_attr("global_symbol", _ANCHOR)


def _compile(module: Any, isa: Isa) -> Any:
    import tvm
    from tvm import relax

    steps = relax.transform
    # The default pipeline legalises operators and expects schedulable blocks; neither exists here.
    passes = tvm.transform.Sequential(
        [
            steps.ToNonDataflow(),
            steps.RemovePurityChecking(),
            steps.CallTIRRewrite(),
            steps.StaticPlanBlockMemory(),
            steps.LowerAllocTensor(),
            steps.KillAfterLastUse(),
            steps.LowerRuntimeBuiltin(),
            steps.ComputePrimValue(),
            steps.VMShapeLower(),
            steps.AttachGlobalSymbol(),
        ]
    )

    @tvm.transform.module_pass(opt_level=0)
    def pipeline(mod: Any, _context: Any) -> Any:
        return passes(mod)

    return tvm.compile(module, target=isa.tvm_target(), relax_pipeline=pipeline)


def link(output: str, objects: Sequence[str], isa: Isa) -> None:
    """Link with binutils alone where possible: kernels need no C or C++ runtime.

    Args:
        output: The shared library.
        objects: Object files.
        isa: Instruction set of their code.

    Raises:
        BuildError: No linker was found, or it failed.
    """
    found, path = find_tool(isa.architecture, "linker", LINKERS)
    if found == "ld":
        command = [path, "-shared", "-s", "--build-id=none", "-o", output, *objects]
    else:
        command = [path, "-shared", "-nostdlib", "-s", "-Wl,--build-id=none", "-o", output]
        command += objects
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{path} failed with status {done.returncode}: {done.stderr[-500:]}")


def linker(isa: Isa) -> Any:
    """`link` as TVM calls it."""

    def link_objects(output: str, objects: list[str], *_args: Any, **_options: Any) -> None:
        link(output, objects, isa)

    link_objects.object_format = "o"  # type: ignore[attr-defined]
    return link_objects
