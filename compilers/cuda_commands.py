"""What the child process does that builds and runs subnets on an NVIDIA GPU: see
`isolation.Worker`, role `cuda`.

Every command is given the `device`, the number of the GPU.
"""

from __future__ import annotations

import contextlib
import tempfile
import time as clock
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from compilers.built import INPUT_FILE, LIBRARY_FILE, OUTPUT_FILE, timing_input
from compilers.check import FLOAT_TOLERANCE, compare
from compilers.cuda_build import build_cuda_library
from compilers.cuda_driver import RUNTIME, load_runtime
from compilers.errors import BuildError, CompilerError, DeviceError, MeasurementError
from compilers.measurement import MeasurementConfig, measure_samplers
from compilers.runtime import load_library
from compilers.timed_model import TimedModel
from spaces.layer_spec import Activation, LayerSpec, Operator
from supernet.extract import Subnet, load_subnet

CLOCK = "CUDA events"
"""Recorded by TVM before and after a batch of calls: the time between is the GPU's own, with its
waits for the next launch. One more call before each batch is not timed."""

EVERY_OPERATOR = (
    LayerSpec("conv", Operator.CONV, 3, 16, 8, 4, 3, 2, activation=Activation.HARDSWISH),
    LayerSpec("depthwise", Operator.DEPTHWISE_CONV, 16, 16, 4, 4, 3, 1, 16, Activation.RELU),
    LayerSpec("se", Operator.SQUEEZE_EXCITE, 16, 16, 4, 4, hidden_channels=8),
    LayerSpec("norm", Operator.LAYER_NORM, 16, 16, 4, 4),
    LayerSpec("qkv", Operator.CONV, 16, 48, 4, 4, heads=1),
    LayerSpec("core", Operator.ATTENTION, 48, 16, 4, 4, 3, heads=1),
    LayerSpec("max_pool", Operator.MAX_POOL, 16, 16, 4, 2, 3, 2),
    LayerSpec("pool", Operator.GLOBAL_POOL, 16, 16, 2, 1),
    LayerSpec("classifier", Operator.LINEAR, 16, 10),
)
"""A subnet with every operator."""


def probe(arguments: Mapping[str, Any]) -> None:
    """Build a subnet with every operator for `isa`, run it and compare it with the module."""
    torch.manual_seed(0)
    subnet = Subnet(EVERY_OPERATOR)
    for tensor in subnet.state_dict().values():
        tensor.normal_(0, 0.3)
    first = EVERY_OPERATOR[0]
    x = timing_input((1, first.in_channels, first.in_size, first.in_size), "float32")
    with tempfile.TemporaryDirectory(prefix="netcarve-probe-") as folder:
        _build(subnet, x, arguments, Path(folder) / LIBRARY_FILE)


def build(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Compile the subnet in `folder` for `isa`, and check it on the GPU against the module.

    The folder holds the subnet and `input.npy`; it receives `library.so` and the module's
    `output.npy`.
    """
    folder = Path(arguments["folder"])
    x = np.load(folder / INPUT_FILE, allow_pickle=False)
    expected, report = _build(load_subnet(folder), x, arguments, folder / LIBRARY_FILE)
    np.save(folder / OUTPUT_FILE, expected)
    return {
        **report,
        "input_shape": [1, *x.shape[1:]],
        "input_dtype": str(x.dtype),
        "output_shape": [1, *expected.shape[1:]],
        "tolerance": FLOAT_TOLERANCE,
    }


def _build(
    subnet: Subnet, x: NDArray[Any], arguments: Mapping[str, Any], library: Path
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """The module's output, and `difference` and `seconds` of the build."""
    torch.set_num_threads(1)
    gpu = _gpu(arguments["device"])
    start = clock.perf_counter()
    build_cuda_library(subnet, torch.from_numpy(x[:1]), arguments["isa"], library)
    seconds = clock.perf_counter() - start
    with torch.inference_mode():
        expected = subnet(torch.from_numpy(x)).numpy()
    with _translated(BuildError):
        found = _load(library, gpu, (1, *expected.shape[1:]))(x)
    difference = compare(found, expected, FLOAT_TOLERANCE, "the GPU's library")
    return expected, {"difference": difference, "seconds": seconds}


def run(arguments: Mapping[str, Any]) -> None:
    """Run the inputs in `input` (.npy) through `library` into `output` (.npy).

    `output_shape` is that of one result, see `Build`.
    """
    x = np.load(arguments["input"], allow_pickle=False)
    if len(x) == 0:
        raise MeasurementError(f"no inputs: shape {x.shape}")
    gpu = _gpu(arguments["device"])
    with _translated(MeasurementError):
        found = _load(arguments["library"], gpu, arguments["output_shape"])(x)
    np.save(arguments["output"], found)


def time(arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Measure libraries against each other: `entries` as `run` takes them, `config`."""
    gpu = _gpu(arguments["device"])
    entries = arguments["entries"]
    config = MeasurementConfig(**arguments["config"])
    models = []
    with _translated(MeasurementError):
        for entry in [*entries, entries[0]]:
            model = _load(entry["library"], gpu, entry["output_shape"])
            model.bind(timing_input(entry["input_shape"], entry["input_dtype"]))
            models.append(model)
        *samplers, twin = (model.sample for model in models)
        found = measure_samplers(samplers, config, twin, CLOCK, here=False)
    return [measurement.to_json() for measurement in found]


def _load(library: str | Path, gpu: Any, output_shape: Sequence[int]) -> TimedModel:
    try:
        return TimedModel(load_library(Path(library)), gpu, output_shape)
    except (OSError, AttributeError) as error:
        raise MeasurementError(f"{library}: no library of a compiled subnet") from error


@contextlib.contextmanager
def _translated(kind: type[CompilerError]) -> Iterator[None]:
    """What CUDA and TVM's runtime say, as an error of netcarve's."""
    try:
        yield
    except RuntimeError as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise kind(f"the GPU failed: {said[-1][:300]}") from error


def _gpu(index: int) -> Any:
    """TVM's device for a GPU."""
    load_runtime()
    import tvm

    if tvm.get_global_func("device_api.cuda", allow_missing=True) is None:
        raise DeviceError(
            f"TVM has no CUDA devices: its CUDA runtime needs {RUNTIME}, of NVIDIA's CUDA 13 "
            "toolkit or the package nvidia-cuda-runtime, and the driver"
        )
    return tvm.cuda(index)


COMMANDS = {"probe": probe, "build": build, "run": run, "time": time}
