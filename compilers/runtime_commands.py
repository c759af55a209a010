"""What the running child process does: see `isolation.Worker`, role `runtime`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from compilers.built import timing_input
from compilers.candidate_timing import CompiledKernel, KernelTimingConfig, time_candidates
from compilers.kernel_timing import time_inference
from compilers.measurement import MeasurementConfig, measure_interleaved
from compilers.runtime import Model


def run(arguments: Mapping[str, Any]) -> None:
    """Run the inputs in `input` (.npy) through `library` into `output` (.npy).

    `input_shape`, `input_dtype` and `output_shape` are those of one inference, see `Build`.
    """
    x = np.load(arguments["input"], allow_pickle=False)
    np.save(arguments["output"], _model(arguments)(x))


def time(arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Measure libraries against each other: `entries` as `run` takes them, `config`."""
    models: list[tuple[Model, Any]] = []
    entries = arguments["entries"]
    for entry in [*entries, entries[0]]:
        model = _model(entry)
        x = timing_input(entry["input_shape"], entry["input_dtype"])
        # What refuses its input is an error of that binary; in the loop below it would be a bug.
        model(x)
        models.append((model, model.tensor(x)))
    functions = [_bind(model, x) for model, x in models]
    config = MeasurementConfig(**arguments["config"])
    return [m.to_json() for m in measure_interleaved(functions[:-1], config, functions[-1])]


def _model(arguments: Mapping[str, Any]) -> Model:
    library = Path(arguments["library"])
    return Model(library, arguments["input_dtype"], arguments["output_shape"])


def _bind(model: Model, x: Any) -> Any:
    main = model.main
    return lambda: main(x)


def time_kernel(arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Measure `candidates` (`CompiledKernel`) of one kernel against each other, `config`."""
    candidates = [CompiledKernel.from_json(data) for data in arguments["candidates"]]
    config = KernelTimingConfig(**arguments["config"])
    return [asdict(latency) for latency in time_candidates(candidates, config)]


def profile(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Measure a `library` (see `run`) and each of its calls of `symbols`: `config`."""
    x = timing_input(arguments["input_shape"], arguments["input_dtype"])
    config = MeasurementConfig(**arguments["config"])
    return time_inference(Path(arguments["library"]), x, arguments["symbols"], config).to_json()


COMMANDS = {"run": run, "time": time, "profile": profile, "time_kernel": time_kernel}
