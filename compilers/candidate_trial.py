"""Trying candidates for the register tile of a kernel: compiled in children, timed on a device.

Candidates are compiled in several child processes at a time and measured one kernel at a time. A
candidate that crashes, hangs or does not compile costs that candidate, and the others go on.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from compilers.built import Build
from compilers.candidate_timing import CompiledKernel, KernelLatency, KernelTimingConfig
from compilers.devices import Device
from compilers.errors import (
    BuildError,
    CompilerError,
    DeviceError,
    KernelLibraryError,
    MeasurementError,
)
from compilers.isolation import ChildBug, Worker
from compilers.kernel_commands import CHAINED
from compilers.kernel_library import KernelLibrary
from compilers.kernel_records import KernelChoice, describe
from compilers.kernels.base import Kernel
from compilers.kernels.tiling import Tile
from compilers.targets import Isa

COMPILE_TIMEOUT = 120.0

SHORT_CHAIN, LONG_CHAIN = 2, 66
"""Calls of one small kernel in two libraries, whose latencies differ by what the calls take."""

Latencies = dict[Tile | None, KernelLatency]
Busy = Callable[[], AbstractContextManager[None]]


@dataclass
class Work:
    """One kernel and its candidates.

    Attributes:
        kernel: The kernel.
        rule: The tile of the template's rule; None where it has no tile.
        candidates: Tiles to try, None being the rule's.
        choice: What was chosen before.
        compiled: The candidates that have been compiled.
        errors: The candidates that were lost, and why.
    """

    kernel: Kernel
    rule: Tile | None
    candidates: list[Tile | None]
    choice: KernelChoice | None
    compiled: dict[Tile | None, CompiledKernel] = field(default_factory=dict)
    errors: dict[Tile | None, str] = field(default_factory=dict)


class CandidateTrial:
    """A context manager; its children live as long as it is open.

    Args:
        library: Keeps the object files.
        device: Where candidates are measured.
        isa: The instruction set, with threads, that they are compiled for.
        processes: Child processes that compile.
        config: How long a candidate is measured.
        time_timeout: Seconds after which a measurement of a kernel is stopped.

    Attributes:
        compiled: Object files compiled so far.
    """

    def __init__(
        self,
        library: KernelLibrary,
        device: Device,
        isa: Isa,
        processes: int,
        config: KernelTimingConfig,
        time_timeout: float,
    ) -> None:
        self.library, self.device, self.isa = library, device, isa
        self.config, self.time_timeout = config, time_timeout
        self.compiled = 0
        # A child ends with the thread that started it: the pool's threads live as long as this.
        self._pool = ThreadPoolExecutor(processes)
        self._local = threading.local()
        self._workers: list[Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.close()
        self._workers.clear()
        self._pool.shutdown()

    def call_us(self, compiling: Busy, measuring: Busy) -> float:
        """Microseconds that the runtime adds to each call of a kernel.

        Args:
            compiling: A context held while something is compiled.
            measuring: A context held while something is measured.

        Raises:
            KernelLibraryError: The library cannot be written.
            DeviceError: The device does not time single kernels.
            MeasurementError: The kernel that is called for this does not run.
        """
        lengths = (SHORT_CHAIN, LONG_CHAIN)
        with tempfile.TemporaryDirectory(prefix="netcarve-calls-") as folder:
            builds = [self._chain(Path(folder) / str(length)) for length in lengths]
            work = Work(CHAINED, None, [None], None)
            with compiling(), Worker("kernels", BuildError) as worker:
                for length, build in zip(lengths, builds, strict=True):
                    request = self._target() | {"output": str(build.library), "length": length}
                    try:
                        worker.request("chain", request, COMPILE_TIMEOUT)
                    except CompilerError:
                        self.library.check_writable()
                        raise
                new = self._compile_with(worker, work, None, str(Path(folder) / "kernel.so"))
                self.compiled += new
            with measuring():
                short, long = (found.median_ms for found in self.device.time(builds))
                alone = self._time(work, [None])
        if alone is None:
            raise MeasurementError(f"{CHAINED} does not run: {work.errors[None]}")
        whole = 1e3 * (long - short) / (LONG_CHAIN - SHORT_CHAIN)
        return max(0.0, whole - alone[None].median_us)

    def compile(self, works: Sequence[Work], folder: Path) -> None:
        """Compile the candidates of all works, each to a shared library in `folder`.

        Raises:
            KernelLibraryError: The library cannot be read or written.
        """
        jobs = [(work, tile) for work in works for tile in work.candidates]
        outputs = [str(folder / f"{number}.so") for number in range(len(jobs))]
        self.compiled += sum(self._pool.map(self._compile, jobs, outputs))

    def measure(self, work: Work) -> Latencies:
        """Latencies of the candidates that work.

        Raises:
            DeviceError: The device does not time single kernels.
        """
        tiles = [tile for tile in work.candidates if tile in work.compiled]
        found = self._time(work, tiles) if tiles else {}
        if found is None and len(tiles) > 1:
            # One of them crashes: alone it takes nobody along.
            alone = [self._time(work, [tile]) for tile in tiles]
            work.errors = {tile: e for tile, e in work.errors.items() if tile not in tiles} | {
                tile: work.errors[tile]
                for tile, one in zip(tiles, alone, strict=True) if one is None
            }  # fmt: skip
            found = {tile: latency for one in alone if one for tile, latency in one.items()}
        return found or {}

    def _chain(self, folder: Path) -> Build:
        folder.mkdir()
        return Build(
            folder=folder,
            specs=(),
            isa=self.isa.name,
            threads=self.isa.threads,
            cpu_flags=(),
            input_shape=CHAINED.input_shape,
            input_dtype="float32",
            output_shape=CHAINED.output_shape,
            kernels=(),
            tolerance=0.0,
            difference=0.0,
            seconds=0.0,
            hardware="",
            versions={},
        )

    def _target(self) -> dict[str, Any]:
        return {
            "isa": self.isa.name,
            "threads": self.isa.threads,
            "kernels": str(self.library.folder),
        }

    def _compile(self, job: tuple[Work, Tile | None], output: str) -> bool:
        """Compile a candidate in this thread's child; whether it was new."""
        work, tile = job
        worker: Worker | None = getattr(self._local, "worker", None)
        if worker is None:
            worker = self._local.worker = Worker("kernels", BuildError)
            self._workers.append(worker)
        return self._compile_with(worker, work, tile, output)

    def _compile_with(self, worker: Worker, work: Work, tile: Tile | None, output: str) -> bool:
        request = self._target() | {
            "kernel": describe(work.kernel),
            "tile": asdict(tile) if tile is not None else None,
            "output": output,
        }
        try:
            answer = worker.request("compile", request, COMPILE_TIMEOUT)
        except KernelLibraryError:
            raise
        except (CompilerError, ChildBug) as error:
            # A code generator that cannot write its file may crash instead of saying so.
            self.library.check_writable()
            work.errors[tile] = _reason(error)
            return False
        work.compiled[tile] = CompiledKernel.from_json({"library": output, **answer})
        return bool(answer["compiled"])

    def _time(self, work: Work, tiles: Sequence[Tile | None]) -> Latencies | None:
        try:
            latencies = self.device.time_kernel(
                [work.compiled[tile] for tile in tiles], self.config, self.time_timeout
            )
        except DeviceError:
            raise
        except (CompilerError, ChildBug) as error:
            work.errors.update(dict.fromkeys(tiles, _reason(error)))
            return None
        return dict(zip(tiles, latencies, strict=True))


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]
