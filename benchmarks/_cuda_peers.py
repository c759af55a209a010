"""Builds a stock network for the GPU, or times it there beside torch and ONNX Runtime; run as a
script by `cuda_vs_peers.py`.

    python benchmarks/_cuda_peers.py prepare|measure NET FOLDER
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _peers import waiting
from _stock_nets import STOCK_NETS

from compilers.cuda_driver import find_gpus, load_runtime
from search.host_lock import HostLock

SAMPLE_SEED = 200
PROVIDER = "CUDAExecutionProvider"
LIBRARY, MODEL, OUTPUT, MEASURED = "library.so", "model.onnx", "expected.npy", "measured.json"


def prepare(name: str, folder: Path) -> None:
    """Write the library of a network, its ONNX model and what torch computes on the CPU."""
    from compilers.cuda_build import build_cuda_library

    load_runtime()
    net = STOCK_NETS[name]
    module, x = net.module(), net.sample(SAMPLE_SEED)
    with torch.inference_mode():
        np.save(folder / OUTPUT, module(x).numpy())
    start = time.perf_counter()
    build_cuda_library(module, x, find_gpus()[0].isa, folder / LIBRARY)
    print(f"built {name} in {time.perf_counter() - start:.0f} s", flush=True)
    import onnxruntime

    if PROVIDER in onnxruntime.get_available_providers():
        torch.onnx.export(
            module, (x,), str(folder / MODEL), dynamo=True, external_data=False, verbose=False
        )


def measure(name: str, folder: Path) -> None:
    """Time the runtimes on one network against each other; write {runtime: ms, "aa": ratio}."""
    from compilers.check import FLOAT_TOLERANCE, compare
    from compilers.measurement import MeasurementConfig, measure_samplers

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    net = STOCK_NETS[name]
    x = net.sample(SAMPLE_SEED)
    calls = {"compiled": _compiled(folder, x), "torch": _torch(net.module(), x)}
    if (folder / MODEL).exists():
        calls["onnxruntime"] = _onnxruntime(folder, x)
    expected = np.load(folder / OUTPUT)
    for label, call in calls.items():
        compare(_host(call()), expected, FLOAT_TOLERANCE, f"{label} {name}")
    samplers = [_timed(call) for call in (*calls.values(), _compiled(folder, x))]
    with HostLock().exclusive("a benchmark", on_wait=waiting):
        found = measure_samplers(
            samplers[:-1], MeasurementConfig(batch_ms=10), samplers[-1], here=False
        )
    ms = {label: one.median_ms for label, one in zip(calls, found, strict=True)}
    (folder / MEASURED).write_text(json.dumps({**ms, "aa": found[0].aa_ratio}))


def _timed(call: Callable[[], object]) -> Callable[[int], float]:
    """Mean milliseconds of so many calls, the GPU idle before and after them: torch waits for all
    of its streams, TVM's and ONNX Runtime's among them."""

    def sample(count: int) -> float:
        torch.cuda.synchronize()
        start = time.perf_counter_ns()
        for _ in range(count):
            call()
        torch.cuda.synchronize()
        return (time.perf_counter_ns() - start) / count / 1e6

    return sample


def _compiled(folder: Path, x: Any) -> Callable[[], Any]:
    load_runtime()
    import tvm
    from tvm.runtime.vm import VirtualMachine

    from compilers.runtime import load_library

    gpu = tvm.cuda(0)
    main = VirtualMachine(load_library(folder / LIBRARY), gpu)["main"]
    given = tvm.runtime.tensor(x.numpy(), gpu)
    return lambda: main(given)


def _torch(module: Any, x: Any) -> Callable[[], Any]:
    module, given = module.cuda(), x.cuda()

    def call() -> Any:
        with torch.inference_mode():
            return module(given)

    return call


def _onnxruntime(folder: Path, x: Any) -> Callable[[], Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(folder / MODEL), providers=[(PROVIDER, {"use_tf32": "0"})]
    )
    if session.get_providers()[0] != PROVIDER:
        raise RuntimeError(f"ONNX Runtime did not load its {PROVIDER}")
    binding = session.io_binding()
    given = onnxruntime.OrtValue.ortvalue_from_numpy(x.numpy(), "cuda", 0)
    binding.bind_ortvalue_input(session.get_inputs()[0].name, given)
    binding.bind_output(session.get_outputs()[0].name, "cuda")

    def call() -> Any:
        session.run_with_iobinding(binding)
        return binding.get_outputs()[0]

    return call


def _host(output: Any) -> Any:
    """The NumPy array of what a runtime returns."""
    return (output.cpu() if hasattr(output, "cpu") else output).numpy()


def _main(command: str, name: str, folder: str) -> None:
    if command == "prepare":
        with HostLock().shared("building the benchmark's networks", on_wait=waiting):
            prepare(name, Path(folder))
    else:
        measure(name, Path(folder))


if __name__ == "__main__":
    _main(*sys.argv[1:])
