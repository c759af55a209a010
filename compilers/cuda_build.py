"""From a float32 module to a library for an NVIDIA GPU: TVM's importer, fusion and schedules.

No kernel of ours is in it, and nothing is tuned: Relax legalises and fuses the operators, and
DLight's fixed GPU schedules bind each to blocks and threads.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from importlib.util import find_spec
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

_MODE = "TVM_CUDA_COMPILE_MODE"
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
        BuildError: No compiler of CUDA code or no linker is installed, or one failed.
    """
    choose_compiler()
    target = gpu_target(isa)
    scheduled = schedule(import_module(module, x), target)
    try:
        executable = compile_scheduled(scheduled, target)
    except RuntimeError as error:
        raise BuildError(f"CUDA code for {isa} does not compile: {str(error)[-_LAST:]}") from error
    host = next((one for one in ISAS.values() if one.architecture == platform.machine()), None)
    if host is None:
        raise BuildError(f"no linker for {platform.machine()} is known")
    with tempfile.TemporaryDirectory(prefix="netcarve-link-") as folder:
        executable.export_library(str(path), fcompile=linker(host), workspace_dir=folder)


def choose_compiler() -> None:
    """Have TVM call nvcc where the CUDA toolkit is installed, else NVIDIA's NVRTC library.

    `TVM_CUDA_COMPILE_MODE`, where a user has set it, is left as it is.

    Raises:
        BuildError: Neither is installed.
    """
    if _MODE in os.environ:
        return
    if shutil.which("nvcc"):
        os.environ[_MODE] = "nvcc"
    elif find_spec("cuda") is None or find_spec("cuda.bindings") is None:
        raise BuildError(
            "nothing here compiles CUDA code: nvcc, of NVIDIA's CUDA toolkit, is not on PATH, and "
            "the package cuda-bindings is not installed"
        )


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
