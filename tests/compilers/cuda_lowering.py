"""Lowers networks for a GPU, without one: `python -m tests.compilers.cuda_lowering NAME...`.

A child process of `test_cuda_build`. Its last line is JSON, network -> what was found.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import torch
import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.relax.backend.cpu_generic import pipeline as cpu_pipeline

from compilers.cuda_build import (
    MOST_THREADS,
    SHARED_BYTES,
    compile_scheduled,
    gpu_target,
    import_module,
    schedule,
)
from compilers.cuda_commands import EVERY_OPERATOR
from spaces import get_space
from tests.compilers.conftest import random_subnet
from tests.compilers.networks import ViTBlock

ISA = "sm_80"
LIMITS = {
    "max_threads_per_block": MOST_THREADS,
    "max_shared_memory_per_block": SHARED_BYTES,
    "max_thread_x": 1024,
    "max_thread_y": 1024,
    "max_thread_z": 64,
}


def network(name: str) -> tuple[torch.nn.Module, torch.Tensor]:
    """The smallest subnet of the digits space that excites and has residuals, a transformer's
    block, or the subnet with every operator that a GPU is probed with; and an input."""
    generator = torch.Generator().manual_seed(1)
    if name == "transformer":
        torch.manual_seed(0)
        block = ViTBlock(24, 3, packed=False).requires_grad_(False)
        return block, torch.randn((1, 17, 24), generator=generator)
    if name == "operators":
        first = EVERY_OPERATOR[0]
        shape = (1, first.in_channels, first.in_size, first.in_size)
        return random_subnet(EVERY_OPERATOR), torch.rand(shape, generator=generator)
    space = get_space("mobilenetv3_digits").restrict(
        choices={"*.w_bits": [32], "*.se": [1], "stage3.depth": [2]}
    )
    subnet = random_subnet(space.layer_specs(space.min_config()))
    side = subnet.resolution
    return subnet, torch.rand((1, 1, side, side), generator=generator)


def kernels(module: Any) -> dict[str, Any]:
    """The TIR functions of a Relax module, by name."""
    found = module.functions_items()
    return {var.name_hint: f for var, f in found if isinstance(f, tirx.PrimFunc)}


def threads(function: Any) -> list[str]:
    """The axes of blocks and threads to which loops of a function are bound."""
    tags: set[str] = set()

    def visit(loop: Any) -> None:
        if loop.thread_binding is not None:
            tags.add(str(loop.thread_binding.thread_tag))

    tvm_ffi.structural_walk(function, (tirx.For, visit))
    return sorted(tags)


def generate(scheduled: Any, target: Any) -> tuple[list[Any], str]:
    """The functions that the generator of CUDA code is given, and what it writes."""
    generator = tvm.get_global_func("target.build.cuda")
    given, written = [], []

    def watched(module: Any, target: Any) -> Any:
        given.extend(module.functions.values())
        generated = generator(module, target)
        written.append(generated.inspect_source())
        return generated

    tvm_ffi.register_global_func("target.build.cuda", watched, override=True)
    compile_scheduled(scheduled, target)
    tvm_ffi.register_global_func("target.build.cuda", generator, override=True)
    return given, "".join(written)


def in_turn(function: Any) -> Any:
    """A scheduled function whose blocks and threads take turns: the loops bound to them are
    ordinary ones. What needs a barrier between threads on a GPU comes out the same."""

    def unbound(loop: Any) -> Any:
        if loop.kind != tirx.ForKind.THREAD_BINDING:
            return loop
        return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, loop.body)

    return tvm_ffi.structural_map(function, (tirx.For, unbound))


def on_cpu(scheduled: Any, x: torch.Tensor) -> Any:
    """What scheduled functions compute on this processor, one GPU thread after the other."""
    module = tvm.IRModule(dict(scheduled.functions_items()))
    for var, function in scheduled.functions_items():
        if isinstance(function, tirx.PrimFunc):
            module[var] = in_turn(function)
            assert threads(module[var]) == []
    target = tvm.target.Target({"kind": "llvm"})
    passes = [*cpu_pipeline.dataflow_lower_passes(target), *cpu_pipeline.finalize_passes(target)]
    pipeline = tvm.transform.Sequential(passes)
    executable = tvm.compile(module, target=target, relax_pipeline=pipeline)
    machine = relax.VirtualMachine(executable, tvm.cpu())
    return machine["main"](tvm.runtime.tensor(x.numpy())).numpy()


def difference(found: Any, expected: Any) -> float:
    return float(abs(found - expected).max() / abs(expected).max())


def examine(name: str) -> Mapping[str, Any]:
    """Everything that can be known of one network without a GPU."""
    module, x = network(name)
    target = gpu_target(ISA)
    scheduled = schedule(import_module(module, x), target)
    with torch.inference_mode():
        expected = module(x).numpy()
    device, source = generate(scheduled, target)
    verify = tvm.s_tir.analysis.verify_gpu_code
    return {
        "threads": {name: threads(f) for name, f in kernels(scheduled).items()},
        "verified": [verify(f, LIMITS) for f in device],
        "verified_for_one_thread": [verify(f, {"max_threads_per_block": 1}) for f in device],
        "source": source,
        "difference": difference(on_cpu(scheduled, x), expected),
    }


def main() -> None:
    torch.set_num_threads(1)
    # Where a GPU is, TVM would call nvcc.
    tvm_ffi.register_global_func("tvm_callback_cuda_compile", lambda _code: b"", override=True)
    print(json.dumps({name: examine(name) for name in sys.argv[1:]}))


if __name__ == "__main__":
    main()
