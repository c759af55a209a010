"""From a float32 module to a library for an NVIDIA GPU: TVM's importer, fusion and schedules.

No kernel of ours is in it, and nothing is tuned: Relax legalises and fuses the operators, and
DLight's fixed GPU schedules bind each to blocks and threads.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compilers.build import linker
from compilers.errors import BuildError, UnsupportedOperatorError
from compilers.targets import ISAS

if TYPE_CHECKING:
    import torch
    from tvm import IRModule
    from tvm.target import Target

MOST_THREADS = 1024
"""Threads of a block, on every GPU since 2010."""

SHARED_BYTES = 48 << 10
"""Shared memory of a block that every GPU gives without being asked."""

_LAST = 1000


def build_cuda_library(module: torch.nn.Module, x: torch.Tensor, isa: str, path: Path) -> None:
    """Write the shared library of `module` to `path`: `main(x)` returns its output.

    Args:
        module: Computes in float32, in evaluation mode.
        x: An input, [1, C, H, W] float32 or [1, T] int64.
        isa: Of the GPU: `sm_90`.
        path: The library.

    Raises:
        UnsupportedOperatorError: TVM's importer lacks an operator.
        BuildError: nvcc or a linker is not installed, or failed.
    """
    if shutil.which("nvcc") is None:
        raise BuildError("nvcc, the compiler of NVIDIA's CUDA toolkit, is not on PATH")
    # TVM's default, NVRTC through cuda-bindings, crashes (cuda-bindings 13.5, NVRTC 13.5).
    os.environ["TVM_CUDA_COMPILE_MODE"] = "nvcc"
    target = gpu_target(isa)
    scheduled = schedule(import_module(module, x), target)
    try:
        executable = compile_scheduled(scheduled, target)
    except RuntimeError as error:
        # What nvcc says stands behind the whole source.
        said = str(error).rpartition("Compilation error:\n")[2][-_LAST:].strip()
        raise BuildError(f"CUDA code for {isa} does not compile: {said}") from error
    host = next((one for one in ISAS.values() if one.architecture == platform.machine()), None)
    if host is None:
        raise BuildError(f"no linker for {platform.machine()} is known")
    with tempfile.TemporaryDirectory(prefix="netcarve-link-") as folder:
        executable.export_library(str(path), fcompile=linker(host), workspace_dir=folder)


def gpu_target(isa: str) -> Target:
    """TVM's target for the instruction set of a GPU: the limits that all GPUs share."""
    from tvm.target import Target

    return Target(
        {
            "kind": "cuda",
            "arch": isa,
            "max_threads_per_block": MOST_THREADS,
            "max_shared_memory_per_block": SHARED_BYTES,
            "thread_warp_size": 32,
            "host": {"kind": "llvm"},
        }
    )


def import_module(module: torch.nn.Module, x: torch.Tensor) -> IRModule:
    """The Relax module of `module`, whose `main` maps a tensor like `x` to the output.

    Raises:
        UnsupportedOperatorError: TVM's importer lacks an operator; the message names it.
    """
    import torch
    from tvm.relax.frontend.torch import from_exported_program

    with torch.no_grad():
        program = torch.export.export(module.eval(), (x,))
    try:
        return from_exported_program(program, unwrap_unit_return_tuple=True)
    except (AssertionError, NotImplementedError) as error:
        raise UnsupportedOperatorError(f"TVM cannot import this module: {error}") from error


def schedule(imported: IRModule, target: Target) -> IRModule:
    """Fuse the operators; every function of the result is bound to blocks and threads."""
    import tvm
    from tvm.relax.backend.cuda.pipeline import legalize_passes, library_dispatch_passes
    from tvm.relax.transform import CanonicalizeBindings, DecomposeOpsForInference

    passes = [DecomposeOpsForInference(), CanonicalizeBindings()]
    passes += [*library_dispatch_passes(target), *legalize_passes(target)]
    with target:
        return tvm.transform.Sequential(passes)(imported)


def compile_scheduled(scheduled: IRModule, target: Target) -> Any:
    """Generate the code of what `schedule` returned: a `tvm.runtime.Executable`."""
    import tvm
    from tvm.relax.backend.cuda.pipeline import dataflow_lower_passes, finalize_passes

    passes = [*dataflow_lower_passes(target), *finalize_passes(target)]
    pipeline = tvm.transform.Sequential(passes)
    # TVM asks for the current target when it calls the compiler of CUDA code.
    with target:
        return tvm.compile(scheduled, target=target, relax_pipeline=pipeline)
