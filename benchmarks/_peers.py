"""Timing compiled libraries beside other runtimes, in a process of its own.

Run as a script by `measure_in_child`: pins itself, takes the host lock, so that no search disturbs
it, and times its calls interleaved. Torch is kept out of a process that does not time it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import exp, log
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from compilers.measurement import Measurement, MeasurementConfig

Runtime = Literal["compiled", "onnxruntime", "openvino", "eager", "torch_compile"]
_TORCH = ("eager", "torch_compile")
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Call:
    """One inference to time.

    Attributes:
        runtime: What executes it.
        file: The library or ONNX model; the name of a stock network for torch.
        input: A .npy file whose first row is the input.
        settings: Entries of ONNX Runtime's session configuration.
    """

    runtime: Runtime
    file: str
    input: str
    settings: Mapping[str, str] = field(default_factory=dict)


class ChildError(Exception):
    """A child process failed; the message is the end of what it said."""


def measure_in_child(
    calls: Sequence[Call], config: MeasurementConfig, threads: int = 1, timeout: float | None = None
) -> list[Measurement]:
    """Time `calls` against each other; the first has a second instance for the A/A ratio.

    Args:
        calls: What to time. On several threads a single one, of which there is no second instance:
            idle workers spin for a while on the processors that others need.
        config: How long.
        threads: Threads of one inference, and processors that the child may use.
        timeout: Seconds until the child is killed.

    Raises:
        ChildError: The child failed or took too long.
    """
    from compilers.measurement import Measurement

    with tempfile.TemporaryDirectory(prefix="netcarve-benchmark-") as folder:
        given, returned = Path(folder) / "given.json", Path(folder) / "returned.json"
        request = {
            "calls": [asdict(call) for call in calls], "config": asdict(config), "threads": threads
        }  # fmt: skip
        given.write_text(json.dumps(request))
        runtime_only = not any(call.runtime in _TORCH for call in calls)
        run_child(__file__, [str(given), str(returned)], threads, timeout, runtime_only)
        return [Measurement.from_json(row) for row in json.loads(returned.read_text())]


def run_child(
    script: str,
    arguments: Sequence[str],
    threads: int = 1,
    timeout: float | None = None,
    runtime_only: bool = False,
) -> None:
    """Run a script of this folder in a child process; its standard output is passed on.

    Args:
        script: Its file.
        arguments: Its arguments.
        threads: Threads of TVM and of OpenMP.
        timeout: Seconds until it is killed.
        runtime_only: Whether it maps TVM's runtime without the compiler.

    Raises:
        ChildError: It failed or took too long.
    """
    search = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(search),
        "TVM_USE_RUNTIME_LIB": str(int(runtime_only)),
        "TVM_NUM_THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
    }
    command = [sys.executable, "-W", "ignore", script, *arguments]
    with tempfile.TemporaryFile() as said:
        try:
            status = subprocess.run(
                command, env=environment, stderr=said, timeout=timeout, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            raise ChildError(f"took longer than {timeout:g} s") from None
        if status != 0:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            raise ChildError(f"status {status}: {lines[-1] if lines else ''}")


def waiting(holders: Any, seconds: float) -> None:
    """Report on standard error who holds the host lock."""
    print(f"waiting for {', '.join(map(str, holders))}, {seconds:.0f} s so far", file=sys.stderr)


def geomean(values: Sequence[float]) -> float:
    """The geometric mean of positive numbers."""
    return exp(sum(map(log, values)) / len(values))


def _compiled(call: Call, x: Any, threads: int) -> Callable[[], object]:
    from compilers.runtime import Model, use_threads

    use_threads(threads)
    model = Model(Path(call.file), str(x.dtype))
    tensor, main = model.tensor(x), model.main
    return lambda: main(tensor)


def _onnxruntime(call: Call, x: Any, threads: int) -> Callable[[], object]:
    from compilers.onnx_export import ort_session

    session = ort_session(Path(call.file), batch=1, settings=call.settings, threads=threads)
    binding = session.io_binding()
    binding.bind_cpu_input(session.get_inputs()[0].name, x)
    binding.bind_output(session.get_outputs()[0].name)
    return lambda: session.run_with_iobinding(binding)


def _openvino(call: Call, x: Any, threads: int) -> Callable[[], object]:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    # Elsewhere OpenVINO may compute in bfloat16.
    settings["INFERENCE_PRECISION_HINT"] = "f32"
    request = openvino.Core().compile_model(call.file, "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x, shared_memory=True))
    return request.infer


def _torch(call: Call, x: Any, threads: int) -> Callable[[], object]:
    import torch
    from _stock_nets import STOCK_NETS

    torch.set_num_threads(threads)
    module: Any = STOCK_NETS[call.file].module()
    if call.runtime == "torch_compile":
        module = torch.compile(module)
    tensor = torch.from_numpy(x)

    def infer() -> object:
        with torch.inference_mode():
            return module(tensor)

    return infer


_RUNTIMES: dict[str, Callable[[Call, Any, int], Callable[[], object]]] = {
    "compiled": _compiled,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "eager": _torch,
    "torch_compile": _torch,
}


def _main(given: str, returned: str) -> None:
    request = json.loads(Path(given).read_text())
    calls, threads = [Call(**call) for call in request["calls"]], int(request["threads"])
    if not any(call.runtime in _TORCH for call in calls):
        sys.modules["torch"] = None  # type: ignore[assignment]
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    from compilers.measurement import MeasurementConfig, measure_interleaved
    from search.host_lock import HostLock

    # Workers of a second instance would spin on the processors of the first.
    twin = calls[:1] if threads == 1 else []
    functions = []
    for call in [*calls, *twin]:
        x = np.ascontiguousarray(np.load(call.input)[:1])
        functions.append(_RUNTIMES[call.runtime](call, x, threads))
        functions[-1]()
    with HostLock().exclusive("a benchmark", on_wait=waiting):
        config = MeasurementConfig(**request["config"])
        measured = measure_interleaved(
            functions[: len(calls)], config, functions[-1] if twin else None
        )
    Path(returned).write_text(json.dumps([measurement.to_json() for measurement in measured]))


if __name__ == "__main__":
    _main(*sys.argv[1:])
