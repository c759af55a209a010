"""Fill the kernel library: choose a register tile for each kernel, and measure it on a device.

Candidates that are lost are recorded with the choice. After every batch what was found is stored,
so that whoever is interrupted goes on there; a choice that another device of the same instruction
set has made is taken over, and only its latency is measured.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from compilers.candidate_timing import KernelLatency, KernelTimingConfig
from compilers.candidate_trial import Busy, CandidateTrial, Latencies, Work
from compilers.devices import Device
from compilers.devices.base import device_identity
from compilers.errors import DeviceError
from compilers.kernel_library import KernelLibrary, generator_key
from compilers.kernel_records import (
    FailedTile,
    KernelChoice,
    KernelTiming,
    TileField,
    choice_key,
)
from compilers.kernels.base import Kernel
from compilers.kernels.tiling import Tile
from compilers.targets import ISAS, Isa
from spaces.capabilities import DeviceCapabilities

BATCH = 48
TIME_TIMEOUT = 30.0
GAIN = 0.97
"""Latency relative to the rule's below which another tile is chosen: less may be chance."""


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
        trial = CandidateTrial(
            self.library, self.device, self.isa, self.processes, self.config, self.time_timeout
        )
        try:
            with trial:
                left = self._missing(kernels)
                report.known = len(kernels) - len(left)
                if left and (deadline is None or time.monotonic() < deadline):
                    self._call_us = trial.call_us(self.compiling, self.measuring)
                while left and (deadline is None or time.monotonic() < deadline):
                    progress(len(kernels) - len(left), len(kernels))
                    self._batch(left[:BATCH], trial)
                    # Another process may have measured some of the others meanwhile.
                    rest = left[BATCH:]
                    left = self._missing(rest)
                    report.known += len(rest) - len(left)
                progress(len(kernels) - len(left), len(kernels))
                report.complete = not left
        finally:
            report.compiled = trial.compiled
            report.seconds = time.monotonic() - start
        return report

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

    def _batch(self, kernels: Sequence[Kernel], trial: CandidateTrial) -> None:
        self.library.reload()
        works = [self._work(kernel) for kernel in kernels]
        with tempfile.TemporaryDirectory(prefix="netcarve-kernels-") as folder:
            start = time.monotonic()
            with self.compiling():
                trial.compile(works, Path(folder))
            compiled = time.monotonic()
            self.report.compile_seconds += compiled - start
            with self.measuring():
                measured = [trial.measure(work) for work in works]
            self.report.time_seconds += time.monotonic() - compiled
        self._store(works, measured)

    def _work(self, kernel: Kernel) -> Work:
        rule, *others = kernel.candidates(self.isa) or (None,)
        choice = self.library.choices().get(choice_key(kernel, self.isa))
        if choice is not None:
            return Work(kernel, rule, [self.library.tile(kernel, self.isa)], choice)
        return Work(kernel, rule, [None, *others], None)

    def _hopeless(self, kernel: Kernel, choice: KernelChoice) -> bool:
        """Whether the tile that would be used is known to fail."""
        lost = [entry.tile.tile if entry.tile is not None else None for entry in choice.failed]
        return self.library.tile(kernel, self.isa) in lost

    def _store(self, works: Iterable[Work], measured: Iterable[Latencies]) -> None:
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

    def _choice(self, work: Work, latencies: Latencies) -> KernelChoice:
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

    def _timing(self, work: Work, tile: Tile | None, latency: KernelLatency) -> KernelTiming:
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
