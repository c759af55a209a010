"""What the running child process does: see `isolation.Worker`, role `runtime`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compilers.kernel_timing import time_inference
from compilers.measurement import MeasurementConfig, measure_interleaved
from compilers.runtime import Model


def run(arguments: Mapping[str, Any]) -> None:
    """Run the inputs in `input` (.npy) through `library` into `output` (.npy)."""
    x = np.load(arguments["input"], allow_pickle=False)
    np.save(arguments["output"], Model(Path(arguments["library"]))(x))


def time(arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Measure libraries against each other: `entries` of {library, input_shape}, `config`."""
    models: list[tuple[Model, Any]] = []
    entries = arguments["entries"]
    for entry in [*entries, entries[0]]:
        model = Model(Path(entry["library"]))
        x = np.random.default_rng(0).random(entry["input_shape"], dtype=np.float32)
        # What refuses its input is an error of that binary; in the loop below it would be a bug.
        model(x)
        models.append((model, model.tensor(x)))
    functions = [_bind(model, x) for model, x in models]
    config = MeasurementConfig(**arguments["config"])
    return [m.to_json() for m in measure_interleaved(functions[:-1], config, functions[-1])]


def _bind(model: Model, x: Any) -> Any:
    main = model.main
    return lambda: main(x)


def profile(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Measure a `library` and each of its calls of `symbols`: `input_shape`, `config`."""
    x = np.random.default_rng(0).random(arguments["input_shape"], dtype=np.float32)
    config = MeasurementConfig(**arguments["config"])
    return time_inference(Path(arguments["library"]), x, arguments["symbols"], config).to_json()


COMMANDS = {"run": run, "time": time, "profile": profile}
