"""The native runner, as bundles hold it, under emulation."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compilers.built import Build, timing_input
from compilers.emulation.qemu import Emulator
from compilers.runtime import FORMAT, MANIFEST
from compilers.tvm_runtime import TvmRuntime

_SOURCE = Path(__file__).parents[1] / "runner" / "runner.cc"
_COUNTED = 10
"""Inferences behind one count."""


class EmulatedRunner:
    """Runs libraries of compiled subnets as a bundle's executable would.

    Args:
        emulator: What executes it.
        runtime: TVM's runtime for the emulated processor.
    """

    def __init__(self, emulator: Emulator, runtime: TvmRuntime) -> None:
        self.emulator = emulator
        self.runtime = runtime

    def run(self, library: Path, given: Path, returned: Path, output_shape: Sequence[int]) -> None:
        """Run inputs through a library.

        Args:
            library: The compiled subnet.
            given: Inputs [n, ...] in the library's element type, .npy.
            returned: Receives the results [n, ...] float32, .npy.
            output_shape: Of one result, [1, ...].

        Raises:
            BuildError: The runner cannot be compiled.
            MeasurementError: It failed; the message ends with what it said.
            ChildCrashError: It crashed.
            ChildTimeoutError: It took too long.
        """
        x = np.load(given, allow_pickle=False, mmap_mode="r")
        with self._bundle(library, [1, *x.shape[1:]], str(x.dtype), output_shape) as folder:
            arguments: list[str | Path] = ["--bundle", folder, "--input", given]
            arguments += ["--output", returned]
            self.emulator.run(self._executable(), arguments)

    def __call__(
        self, library: Path, x: NDArray[Any], output_shape: Sequence[int]
    ) -> NDArray[np.float32]:
        """Results [n, ...] of inputs [n, ...]. Raises as `run`."""
        with tempfile.TemporaryDirectory(prefix="netcarve-emulation-") as folder:
            given, returned = Path(folder) / "x.npy", Path(folder) / "y.npy"
            np.save(given, np.ascontiguousarray(x))
            self.run(library, given, returned, output_shape)
            logits: NDArray[np.float32] = np.load(returned, allow_pickle=False)
            return logits

    def instructions(self, build: Build) -> int:
        """Instructions of one inference, kernels and all around them.

        Raises as `run`.
        """
        shape, dtype = build.input_shape, build.input_dtype
        with self._bundle(build.library, shape, dtype, build.output_shape) as folder:
            given = folder / "x.npy"
            np.save(given, timing_input(shape, dtype))
            arguments: list[str | Path] = ["--bundle", folder, "--input", given]
            arguments += ["--output", folder / "y.npy"]

            def count(repeats: int) -> int:
                return self.emulator.count(
                    self._executable(), [*arguments, "--repeats", str(repeats)]
                )

            return round((count(1 + _COUNTED) - count(1)) / _COUNTED)

    def _executable(self) -> Path:
        return self.emulator.compile(
            _SOURCE,
            [
                f"-I{self.runtime.include}",
                "-Wl,--no-as-needed",
                *map(str, self.runtime.libraries),
                *(f"-Wl,-rpath,{library.parent}" for library in self.runtime.libraries),
            ],
        )

    @contextmanager
    def _bundle(
        self, library: Path, shape: Sequence[int], dtype: str, output_shape: Sequence[int]
    ) -> Iterator[Path]:
        """A folder with what the runner reads of a bundle."""
        isa = self.emulator.isa
        manifest = {
            "format": FORMAT,
            "library": library.name,
            "input_shape": list(shape),
            "input_dtype": dtype,
            "output_shape": list(output_shape),
            "isa": isa.name,
            "threads": isa.threads,
            "cpu_flags": sorted(isa.cpu_flags),
        }
        with tempfile.TemporaryDirectory(prefix="netcarve-emulation-") as scratch:
            folder = Path(scratch)
            (folder / library.name).symlink_to(library.resolve())
            (folder / MANIFEST).write_text(json.dumps(manifest))
            yield folder
