"""What the child process does that has a server run binaries: see `isolation.Worker`, role `rpc`.

Every command is given the `server`, the fields of `rpc_session.Server`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compilers.built import timing_input
from compilers.errors import MeasurementError
from compilers.measurement import MeasurementConfig, measure_samplers
from compilers.rpc_session import Server, Session, SessionKeeper
from compilers.timed_model import TimedModel

CLOCK = "time_evaluator on the server"
"""TVM's loop around the calls, with the server's steady clock: the network is not in it. It makes
one more call before each batch, which is not timed."""

SESSIONS = SessionKeeper()


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


def _model(session: Session, arguments: Mapping[str, Any]) -> TimedModel:
    library = Path(arguments["library"])
    module = session.load(library)
    try:
        return TimedModel(module, session.device, arguments["output_shape"])
    except AttributeError as error:
        raise MeasurementError(f"{library}: no library of a compiled subnet") from error


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
