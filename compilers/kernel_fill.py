"""Fill the kernel library: choose a register tile for each kernel, and measure it on a device.

Candidates are compiled in several child processes at a time and measured one kernel at a time. A
candidate that crashes, hangs or does not compile costs that candidate: it is recorded with the
choice, and the others go on. After every batch what was found is stored, so that whoever is
interrupted goes on there; a choice that another device of the same instruction set has made is
taken over, and only its latency is measured.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from compilers.built import Build
from compilers.candidate_timing import CompiledKernel, KernelLatency, KernelTimingConfig
from compilers.devices import Device
from compilers.devices.base import device_identity
from compilers.errors import (
    BuildError,
    CompilerError,
    DeviceError,
    KernelLibraryError,
    MeasurementError,
)
from compilers.isolation import ChildBug, Worker
from compilers.kernel_commands import CHAINED
from compilers.kernel_library import KernelLibrary, generator_key
from compilers.kernel_records import (
    FailedTile,
    KernelChoice,
    KernelTiming,
    TileField,
    choice_key,
    describe,
)
from compilers.kernels.base import Kernel
from compilers.kernels.tiling import Tile
from compilers.targets import ISAS, Isa
from spaces.capabilities import DeviceCapabilities

BATCH = 48
COMPILE_TIMEOUT = 120.0
TIME_TIMEOUT = 30.0
GAIN = 0.97
"""Latency relative to the rule's below which another tile is chosen: less may be chance."""

SHORT_CHAIN, LONG_CHAIN = 2, 66
"""Calls of one small kernel in two libraries, whose latencies differ by what the calls take."""

Latencies = dict[Tile | None, KernelLatency]
Busy = Callable[[], AbstractContextManager[None]]


def device_isa(capabilities: DeviceCapabilities) -> Isa:
    """The instruction set, with threads, that kernels of a device are compiled for.

    Raises:
        DeviceError: No kernel templates are written for it.
    """
    if capabilities.isa not in ISAS:
        raise DeviceError(f"no kernels for isa {capabilities.isa!r}; known: {', '.join(ISAS)}")
    return ISAS[capabilities.isa].with_threads(capabilities.threads)


@dataclass
class FillReport:
    """What one run has done.

    Attributes:
        kernels: Kernels asked for.
        known: Of these, how many others had measured on the device, or found not to work.
        timed: Kernels measured in this run.
        tuned: Of these, how many had their tile chosen in this run.
        reused: Of these, how many took over the choice made for another device.
        changed: Kernels tuned in this run whose tile is not the template's rule.
        compiled: Object files compiled in this run.
        failed_candidates: Candidates lost in this run.
        failed: Kernels of which no candidate works, found in this run.
        complete: Whether nothing is left to do.
        seconds: Wall time.
        compile_seconds: Of these, compilation.
        time_seconds: Of these, measurement.
    """

    kernels: int = 0
    known: int = 0
    timed: int = 0
    tuned: int = 0
    reused: int = 0
    changed: int = 0
    compiled: int = 0
    failed_candidates: int = 0
    failed: int = 0
    seconds: float = 0.0
    compile_seconds: float = 0.0
    time_seconds: float = 0.0
    complete: bool = False


@dataclass
class _Work:
    """One kernel on its way through a batch."""

    kernel: Kernel
    rule: Tile | None
    candidates: list[Tile | None]
    choice: KernelChoice | None
    compiled: dict[Tile | None, CompiledKernel] = field(default_factory=dict)
    errors: dict[Tile | None, str] = field(default_factory=dict)


class LibraryFill:
    """Measures kernels on one device, and chooses their tiles where nobody has.

    Args:
        library: Where everything goes.
        device: The device.
        capabilities: What its probe found.
        compiling: A context held while candidates are compiled.
        measuring: A context held while kernels are measured: nothing else may run on the host.
        processes: Child processes that compile.
        config: How long a candidate is measured.
        time_timeout: Seconds after which a measurement of a kernel is stopped.
    """

    def __init__(
        self,
        library: KernelLibrary,
        device: Device,
        capabilities: DeviceCapabilities,
        compiling: Busy,
        measuring: Busy,
        processes: int = 2,
        config: KernelTimingConfig | None = None,
        time_timeout: float = TIME_TIMEOUT,
    ) -> None:
        self.library = library
        self.device = device
        self.isa = device_isa(capabilities)
        self.identity = device_identity(device.config, capabilities)
        self.compiling = compiling
        self.measuring = measuring
        self.processes = processes
        self.config = config or KernelTimingConfig()
        self.time_timeout = time_timeout
        self.report = FillReport()
        self._call_us = 0.0
        self._local = threading.local()
        self._workers: list[Worker] = []

    def run(
        self,
        kernels: Sequence[Kernel],
        progress: Callable[[int, int], None] = lambda _done, _total: None,
        deadline: float | None = None,
    ) -> FillReport:
        """Choose and measure what is missing.

        Args:
            kernels: Distinct kernels.
            progress: Told (done, total) after every batch.
            deadline: `time.monotonic()` after which no further batch begins.

        Returns:
            What was done; `complete` is False when the deadline came first.

        Raises:
            KernelLibraryError: The library cannot be read or written.
            DeviceError: The device does not time single kernels.
        """
        start = time.monotonic()
        report = self.report = FillReport(kernels=len(kernels))
        # A child ends with the thread that started it: the pool's threads live as long as the run.
        with ThreadPoolExecutor(self.processes) as pool:
            try:
                left = self._missing(kernels)
                report.known = len(kernels) - len(left)
                if left and (deadline is None or time.monotonic() < deadline):
                    self._call_us = self._measure_calls()
                while left and (deadline is None or time.monotonic() < deadline):
                    progress(len(kernels) - len(left), len(kernels))
                    self._batch(left[:BATCH], pool)
                    # Another process may have measured some of the others meanwhile.
                    rest = left[BATCH:]
                    left = self._missing(rest)
                    report.known += len(rest) - len(left)
                progress(len(kernels) - len(left), len(kernels))
                report.complete = not left
            finally:
                for worker in self._workers:
                    worker.close()
                self._workers.clear()
                report.seconds = time.monotonic() - start
        return report

    def _measure_calls(self) -> float:
        """Microseconds that the runtime adds to each call of a kernel."""
        lengths = (SHORT_CHAIN, LONG_CHAIN)
        with tempfile.TemporaryDirectory(prefix="netcarve-calls-") as folder:
            builds = [self._chain(Path(folder) / str(length)) for length in lengths]
            work = _Work(CHAINED, None, [None], None)
            with self.compiling(), Worker("kernels", BuildError) as worker:
                for length, build in zip(lengths, builds, strict=True):
                    request = self._target() | {"output": str(build.library), "length": length}
                    try:
                        worker.request("chain", request, COMPILE_TIMEOUT)
                    except CompilerError:
                        self.library.check_writable()
                        raise
                new = self._compile_with(worker, work, None, str(Path(folder) / "kernel.so"))
                self.report.compiled += new
            with self.measuring():
                short, long = (found.median_ms for found in self.device.time(builds))
                alone = self._time(work, [None])
        if alone is None:
            raise MeasurementError(f"{CHAINED} does not run: {work.errors[None]}")
        whole = 1e3 * (long - short) / (LONG_CHAIN - SHORT_CHAIN)
        return max(0.0, whole - alone[None].median_us)

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

    def _missing(self, kernels: Sequence[Kernel]) -> list[Kernel]:
        """Kernels without a latency that are not known to fail."""
        self.library.reload()
        known = self.library.timings(self.identity, self.isa)
        choices = self.library.choices()
        missing = []
        for kernel in kernels:
            choice = choices.get(choice_key(kernel, self.isa))
            hopeless = choice is not None and self._hopeless(kernel, choice)
            if kernel not in known and not hopeless:
                missing.append(kernel)
        return missing

    def _batch(self, kernels: Sequence[Kernel], pool: ThreadPoolExecutor) -> None:
        self.library.reload()
        works = [self._work(kernel) for kernel in kernels]
        with tempfile.TemporaryDirectory(prefix="netcarve-kernels-") as folder:
            start = time.monotonic()
            with self.compiling():
                jobs = [(work, tile) for work in works for tile in work.candidates]
                outputs = [str(Path(folder) / f"{number}.so") for number in range(len(jobs))]
                self.report.compiled += sum(pool.map(self._compile, jobs, outputs))
            compiled = time.monotonic()
            self.report.compile_seconds += compiled - start
            with self.measuring():
                measured = [self._measure(work) for work in works]
            self.report.time_seconds += time.monotonic() - compiled
        self._store(works, measured)

    def _work(self, kernel: Kernel) -> _Work:
        rule, *others = kernel.candidates(self.isa) or (None,)
        choice = self.library.choices().get(choice_key(kernel, self.isa))
        if choice is not None:
            return _Work(kernel, rule, [self.library.tile(kernel, self.isa)], choice)
        return _Work(kernel, rule, [None, *others], None)

    def _hopeless(self, kernel: Kernel, choice: KernelChoice) -> bool:
        """Whether the tile that would be used is known to fail."""
        lost = [entry.tile.tile if entry.tile is not None else None for entry in choice.failed]
        return self.library.tile(kernel, self.isa) in lost

    def _compile(self, job: tuple[_Work, Tile | None], output: str) -> bool:
        """Compile a candidate in this thread's child; whether it was new."""
        work, tile = job
        worker: Worker | None = getattr(self._local, "worker", None)
        if worker is None:
            worker = self._local.worker = Worker("kernels", BuildError)
            self._workers.append(worker)
        return self._compile_with(worker, work, tile, output)

    def _compile_with(self, worker: Worker, work: _Work, tile: Tile | None, output: str) -> bool:
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

    def _measure(self, work: _Work) -> Latencies:
        """Latencies of the candidates that work."""
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

    def _time(self, work: _Work, tiles: Sequence[Tile | None]) -> Latencies | None:
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

    def _store(self, works: Iterable[_Work], measured: Iterable[Latencies]) -> None:
        choices, timings = [], []
        report = self.report
        for work, latencies in zip(works, measured, strict=True):
            report.failed_candidates += len(work.errors)
            report.failed += not latencies
            if work.choice is None or work.errors:
                choices.append(self._choice(work, latencies))
            if latencies:
                tile = _fastest(latencies)
                timings.append(self._timing(work, tile, latencies[tile]))
                report.timed += 1
                report.tuned += work.choice is None
                report.reused += work.choice is not None
                report.changed += work.choice is None and tile is not None
        # Choices first: a latency counts only for the tile that is chosen.
        self.library.store_choices(choices)
        self.library.store_timings(self.identity, timings)

    def _choice(self, work: _Work, latencies: Latencies) -> KernelChoice:
        tile = _fastest(latencies) if latencies else None
        failed = tuple(
            FailedTile(tile=TileField.of(lost), error=error) for lost, error in work.errors.items()
        )
        chosen = work.rule if tile is None else tile
        if not latencies:
            chosen = None
        return KernelChoice(
            kernel=work.kernel,
            isa=self.isa.name,
            threads=self.isa.threads,
            tile=TileField.of(chosen),
            failed=failed,
        )

    def _timing(self, work: _Work, tile: Tile | None, latency: KernelLatency) -> KernelTiming:
        return KernelTiming(
            device=self.identity,
            kernel=work.kernel,
            threads=self.isa.threads,
            tile=TileField.of(tile),
            generator=generator_key(),
            call_us=self._call_us,
            **asdict(latency),
        )


def _fastest(latencies: Latencies) -> Tile | None:
    """The fastest candidate; the rule (None) unless another one gains more than chance."""
    best = min(latencies, key=lambda tile: latencies[tile].median_us)
    rule = latencies.get(None)
    if rule is not None and latencies[best].median_us > GAIN * rule.median_us:
        return None
    return best


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]
