"""The native runner, as bundles hold it, under emulation."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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

    def run(self, library: Path, given: Path, returned: Path) -> None:
        """Run the inputs in `given` (.npy, [n, C, H, W] float32) into `returned` (.npy).

        Raises:
            BuildError: The runner cannot be compiled.
            MeasurementError: It failed; the message ends with what it said.
            ChildCrashError: It crashed.
            ChildTimeoutError: It took too long.
        """
        shape = [1, *np.load(given, allow_pickle=False, mmap_mode="r").shape[1:]]
        with self._bundle(library, shape) as folder:
            arguments: list[str | Path] = ["--bundle", folder, "--input", given]
            arguments += ["--output", returned]
            self.emulator.run(self._executable(), arguments)

    def __call__(self, library: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits [n, classes] of inputs [n, C, H, W] float32. Raises as `run`."""
        with tempfile.TemporaryDirectory(prefix="netcarve-emulation-") as folder:
            given, returned = Path(folder) / "x.npy", Path(folder) / "y.npy"
            np.save(given, np.ascontiguousarray(x, np.float32))
            self.run(library, given, returned)
            logits: NDArray[np.float32] = np.load(returned, allow_pickle=False)
            return logits

    def instructions(self, library: Path, shape: Sequence[int]) -> int:
        """Instructions of one inference of an input [1, C, H, W], kernels and all around them.

        Raises as `run`.
        """
        with self._bundle(library, shape) as folder:
            given = folder / "x.npy"
            np.save(given, np.random.default_rng(0).random(shape, dtype=np.float32))
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
    def _bundle(self, library: Path, shape: Sequence[int]) -> Iterator[Path]:
        """A folder with what the runner reads of a bundle."""
        isa = self.emulator.isa
        manifest = {
            "format": FORMAT,
            "library": library.name,
            "input_shape": list(shape),
            "isa": isa.name,
            "threads": isa.threads,
            "cpu_flags": sorted(isa.cpu_flags),
        }
        with tempfile.TemporaryDirectory(prefix="netcarve-emulation-") as scratch:
            folder = Path(scratch)
            (folder / library.name).symlink_to(library.resolve())
            (folder / MANIFEST).write_text(json.dumps(manifest))
            yield folder
