"""What the child process does that has a server run binaries: see `isolation.Worker`, role `rpc`.

Every command is given the `server`, the fields of `rpc_session.Server`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compilers.built import timing_input
from compilers.errors import MeasurementError
from compilers.measurement import MeasurementConfig, measure_samplers
from compilers.rpc_session import Server, Session, SessionKeeper

CLOCK = "time_evaluator on the server"
"""TVM's loop around the calls, with the server's steady clock: the network is not in it. It makes
one more call before each batch, which is not timed."""

SESSIONS = SessionKeeper()


class RemoteModel:
    """A compiled subnet, loaded on the server.

    Args:
        session: An open session.
        library: The local file.
        output_shape: Of the result of one input, [1, ...].

    Raises:
        MeasurementError: The library is no compiled subnet.
    """

    def __init__(self, session: Session, library: Path, output_shape: Sequence[int]) -> None:
        from tvm.runtime.vm import VirtualMachine

        module = session.load(library)
        try:
            self._machine = VirtualMachine(module, session.device)
        except AttributeError as error:
            raise MeasurementError(f"{library}: no library of a compiled subnet") from error
        self._session = session
        self._output_shape = output_shape
        self._timers: dict[int, Any] = {}

    def __call__(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Results [n, ...] float32 of inputs [n, ...] in the library's element type, n >= 1."""
        rows = []
        for i in range(len(x)):
            self._machine.set_input("main", self._session.tensor(x[i : i + 1]))
            self._machine.invoke_stateful("main")
            rows.append(self._machine.get_outputs("main").numpy().reshape(self._output_shape))
        return np.concatenate(rows)

    def bind(self, x: NDArray[Any]) -> None:
        """Fix the input [1, ...] of the calls that `sample` makes."""
        self._machine.save_function("main", "timed", self._session.tensor(x), include_return=False)

    def sample(self, calls: int) -> float:
        """Mean milliseconds of a call over a batch of so many."""
        if calls not in self._timers:
            self._timers[calls] = self._machine.time_evaluator(
                "timed", self._session.device, number=calls
            )
        return float(self._timers[calls]().mean) * 1e3


def ready(_arguments: Mapping[str, Any]) -> None:
    """Do nothing, after everything was imported."""
    import tvm.rpc  # noqa: F401


def connect(arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """Open a session unless one is open; what the server tells about its machine."""
    with SESSIONS.session(Server(**arguments["server"])) as session:
        return session.host


def run(arguments: Mapping[str, Any]) -> None:
    """Run the inputs in `input` (.npy) through `library` into `output` (.npy).

    `input_shape`, `input_dtype` and `output_shape` are those of one inference, see `Build`.
    """
    x = np.load(arguments["input"], allow_pickle=False)
    if len(x) == 0:
        raise MeasurementError(f"no inputs: shape {x.shape}")
    with SESSIONS.session(Server(**arguments["server"])) as session:
        np.save(arguments["output"], _model(session, arguments)(x))


def time(arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Measure libraries against each other: `entries` as `run` takes them, `config`."""
    config = MeasurementConfig(**arguments["config"])
    entries = arguments["entries"]
    with SESSIONS.session(Server(**arguments["server"])) as session:
        models = []
        for entry in [*entries, entries[0]]:
            model = _model(session, entry)
            model.bind(timing_input(entry["input_shape"], entry["input_dtype"]))
            models.append(model)
        *samplers, twin = (model.sample for model in models)
        found = measure_samplers(samplers, config, twin, CLOCK, here=False)
    return [measurement.to_json() for measurement in found]


def _model(session: Session, arguments: Mapping[str, Any]) -> RemoteModel:
    return RemoteModel(session, Path(arguments["library"]), arguments["output_shape"])


def kernel(arguments: Mapping[str, Any]) -> float:
    """Call one function, as `probe.write_trials` describes it; its largest absolute difference."""
    expected = np.load(arguments["expected"], allow_pickle=False)
    inputs = [np.load(path, allow_pickle=False) for path in arguments["inputs"]]
    with SESSIONS.session(Server(**arguments["server"])) as session:
        function = session.load(Path(arguments["library"]))[arguments["symbol"]]
        out = session.tensor(np.zeros(arguments["shape"], arguments["dtype"]))
        function(*map(session.tensor, inputs), out)
        return float(np.abs(out.numpy().astype(np.float64) - expected).max())


COMMANDS = {"ready": ready, "connect": connect, "run": run, "time": time, "kernel": kernel}
