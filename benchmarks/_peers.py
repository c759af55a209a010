"""Timing compiled libraries beside other runtimes, on one thread, in a process of its own.

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
from typing import IO, TYPE_CHECKING, Any, Literal

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
    calls: Sequence[Call], config: MeasurementConfig, timeout: float | None = None
) -> list[Measurement]:
    """Time `calls` on one thread; the first has a second instance for the A/A ratio.

    Args:
        calls: What to time against each other.
        config: How long.
        timeout: Seconds until the child is killed.

    Raises:
        ChildError: The child failed or took too long.
    """
    from compilers.measurement import Measurement

    with tempfile.TemporaryDirectory(prefix="netcarve-benchmark-") as folder:
        given, returned = Path(folder) / "given.json", Path(folder) / "returned.json"
        request = {"calls": [asdict(call) for call in calls], "config": asdict(config)}
        given.write_text(json.dumps(request))
        runtime_only = not any(call.runtime in _TORCH for call in calls)
        run_child(__file__, [str(given), str(returned)], timeout, runtime_only)
        return [Measurement.from_json(row) for row in json.loads(returned.read_text())]


def run_child(
    script: str,
    arguments: Sequence[str],
    timeout: float | None = None,
    runtime_only: bool = False,
) -> None:
    """Run a script of this folder in a child process; its standard output is passed on.

    Args:
        script: Its file.
        arguments: Its arguments.
        timeout: Seconds until it is killed.
        runtime_only: Whether it maps TVM's runtime without the compiler.

    Raises:
        ChildError: It failed or took too long.
    """
    command = [sys.executable, "-W", "ignore", script, *arguments]
    with tempfile.TemporaryFile() as said:
        try:
            status = subprocess.run(
                command,
                env=child_environment(1, runtime_only),
                stderr=said,
                timeout=timeout,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            raise ChildError(f"took longer than {timeout:g} s") from None
        if status != 0:
            raise ChildError(f"status {status}: {last_words(said)}")


def child_environment(threads: int, runtime_only: bool) -> dict[str, str]:
    """Environment variables of a child process.

    Args:
        threads: Threads of TVM and of OpenMP.
        runtime_only: Whether it maps TVM's runtime without the compiler.
    """
    search = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(search),
        "TVM_USE_RUNTIME_LIB": str(int(runtime_only)),
        "TVM_NUM_THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
    }


def last_words(said: IO[bytes]) -> str:
    """The last line that a child wrote to a file."""
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


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

    first, *others = sorted(os.sched_getaffinity(0))
    settings = dict(call.settings)
    if others:
        # It counts processors from one.
        affinities = ";".join(str(cpu + 1) for cpu in others)
        settings["session.intra_op_thread_affinities"] = affinities
    session = ort_session(Path(call.file), batch=1, settings=settings, threads=threads)
    os.sched_setaffinity(0, {first})
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


def prepare(calls: Sequence[Call], threads: int) -> list[Callable[[], object]]:
    """Make this process ready to make calls, on as many processors as threads."""
    if not any(call.runtime in _TORCH for call in calls):
        sys.modules["torch"] = None  # type: ignore[assignment]
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    functions = []
    for call in calls:
        x = np.ascontiguousarray(np.load(call.input)[:1])
        functions.append(_RUNTIMES[call.runtime](call, x, threads))
        functions[-1]()
    return functions


def _main(given: str, returned: str) -> None:
    request = json.loads(Path(given).read_text())
    calls = [Call(**call) for call in request["calls"]]
    from compilers.measurement import MeasurementConfig, measure_interleaved
    from search.host_lock import HostLock

    *functions, twin = prepare([*calls, calls[0]], 1)
    with HostLock().exclusive("a benchmark", on_wait=waiting):
        config = MeasurementConfig(**request["config"])
        measured = measure_interleaved(functions, config, twin)
    Path(returned).write_text(json.dumps([measurement.to_json() for measurement in measured]))


if __name__ == "__main__":
    _main(*sys.argv[1:])
