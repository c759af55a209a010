"""What the child process does that runs subnets in other runtimes: see `isolation.Worker`, role
`peer`.

Every command is given the `runtime`, `onnxruntime` or `torch`, and the `threads` and the `batch` of
one inference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from compilers.built import INPUT_FILE, ONNX_FILE, OUTPUT_FILE, timing_input
from compilers.check import compare, tolerance
from compilers.errors import MeasurementError, UnsupportedOperatorError
from compilers.measurement import MeasurementConfig, measure_interleaved


class Peer(Protocol):
    """A subnet, loaded into a runtime."""

    def bind(self, x: NDArray[np.float32]) -> Callable[[], Any]:
        """A function of no arguments that infers [batch, C, H, W] float32; logits
        [batch, classes]."""


class OnnxPeer:
    """The ONNX twin of a subnet in ONNX Runtime, with its default optimisations.

    Args:
        folder: Holds the twin.
        threads: Threads of one inference.
        batch: Inputs of one inference.

    Raises:
        UnsupportedOperatorError: The twin takes another number of inputs.
    """

    def __init__(self, folder: Path, threads: int, batch: int) -> None:
        from compilers.onnx_export import ort_session

        self._session = ort_session(folder / ONNX_FILE, batch=batch, threads=threads)
        given = self._session.get_inputs()[0]
        if isinstance(given.shape[0], int) and given.shape[0] != batch:
            raise UnsupportedOperatorError(
                f"the ONNX twin takes {given.shape[0]} input at a time, not {batch}: an operator "
                "mixes what belongs to different inputs"
            )
        self._name = given.name

    def bind(self, x: NDArray[np.float32]) -> Callable[[], Any]:
        """See `Peer.bind`."""
        feed = {self._name: x}
        return lambda: self._session.run(None, feed)[0]


class TorchPeer:
    """The extracted module itself, called eagerly.

    Args:
        folder: Holds the subnet.
        threads: Threads of one inference.
        batch: Inputs of one inference; any will do.
    """

    def __init__(self, folder: Path, threads: int, batch: int) -> None:
        import torch

        from supernet.extract import load_subnet

        del batch
        torch.set_num_threads(threads)
        self._subnet = load_subnet(folder)

    def bind(self, x: NDArray[np.float32]) -> Callable[[], Any]:
        """See `Peer.bind`."""
        import torch

        tensor = torch.from_numpy(np.ascontiguousarray(x))

        def call() -> Any:
            with torch.inference_mode():
                return self._subnet(tensor).numpy()

        return call


PEERS: dict[str, Callable[[Path, int, int], Peer]] = {"onnxruntime": OnnxPeer, "torch": TorchPeer}


def _load(arguments: Mapping[str, Any], folder: str) -> Peer:
    return PEERS[arguments["runtime"]](Path(folder), arguments["threads"], arguments["batch"])


def _infer(peer: Peer, x: NDArray[np.float32], batch: int) -> NDArray[np.float32]:
    if len(x) == 0:
        raise MeasurementError(f"no inputs: shape {x.shape}")
    found = []
    for start in range(0, len(x), batch):
        # A runtime may be optimised for one batch: a last one of fewer inputs is filled up.
        rows = np.arange(start, start + batch)
        part = x[np.minimum(rows, len(x) - 1)]
        found.append(np.asarray(peer.bind(part)())[: len(x) - start])
    return np.concatenate(found)


def check(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Compare the runtime with the module of the subnet in `folder` on its sample, and write the
    module's output there."""
    import torch

    from supernet.extract import load_subnet

    folder = Path(arguments["folder"])
    x = np.load(folder / INPUT_FILE, allow_pickle=False)
    subnet = load_subnet(folder)
    with torch.inference_mode():
        expected = subnet(torch.from_numpy(x)).numpy()
    np.save(folder / OUTPUT_FILE, expected)
    allowed = tolerance(subnet.specs)
    batch = arguments["batch"]
    found = _infer(_load(arguments, arguments["folder"]), x, batch)
    return {
        "input_shape": [batch, *x.shape[1:]],
        "input_dtype": str(x.dtype),
        "output_shape": [batch, *expected.shape[1:]],
        "tolerance": allowed,
        "difference": compare(found, expected, allowed, arguments["runtime"]),
    }


def run(arguments: Mapping[str, Any]) -> None:
    """Run the inputs in `input` (.npy) through the subnet in `folder` into `output` (.npy)."""
    x = np.load(arguments["input"], allow_pickle=False)
    found = _infer(_load(arguments, arguments["folder"]), x, arguments["batch"])
    np.save(arguments["output"], found)


def time(arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Measure subnets against each other: `entries` of {folder, input_shape}, `config`."""
    entries = arguments["entries"]
    functions = []
    for entry in [*entries, entries[0]]:
        x = timing_input(entry["input_shape"], "float32")
        functions.append(partial(_load(arguments, entry["folder"]).bind(x)))
    config = MeasurementConfig(**arguments["config"])
    return [m.to_json() for m in measure_interleaved(functions[:-1], config, functions[-1])]


COMMANDS = {"check": check, "run": run, "time": time}
