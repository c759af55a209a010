"""Builds and measurements of one batch of configs after the other, for a pool of devices.

Each config is built once for all devices that can share the build, several configs at a time; then
the batch is measured device by device, and some of its pairs once more at the end.
"""

from __future__ import annotations

import hashlib
import math
import re
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compilers.built import Build
from compilers.devices import Device, make_device
from compilers.errors import BuildError, CompilerError, KernelLibraryError
from compilers.isolation import ChildBug, Worker
from compilers.measurement import Measurement, MeasurementConfig
from search.device_pool import PoolDevice
from search.home import runtime_folder
from search.host_lock import HostLock, announce
from search.progress import Progress
from search.store import Store
from search.store_latencies import LatencyRecord
from spaces import Config, SearchSpace
from spaces.files import remove_abandoned

if TYPE_CHECKING:
    from supernet import Subnet, Supernet

BATCH = 6
"""Configs built and measured together; a kill loses at most these."""

MEASUREMENT = MeasurementConfig(
    warmup_ms=15.0, batch_ms=1.0, min_repeats=30, max_repeats=60, interval=0.02
)
"""Shorter than a job's: a table has many configs, and needs their order more than each value."""

STEADY = 0.05
"""A session in which one binary measured twice differs by more is repeated."""

_TEMPORARY = "netcarve-pool-"

Outcome = float | str
"""A latency in ms, or why there is none."""
Outcomes = dict[tuple[Config, str], Outcome]
"""What is known of pairs of a config and the name of a device."""


@dataclass
class PoolReport:
    """What one run has done; a pair is a config on a device.

    Attributes:
        table: The latency table.
        devices: Names of the devices.
        configs: Configs asked for, or as many as the space has.
        pairs: Pairs asked for.
        known: Of these, how many were recorded before.
        measured: Pairs measured in this run.
        repeated: Of these, how many were measured a second time.
        failed: Pairs that could not be built or measured in this run.
        complete: Whether nothing is left to do.
        seconds: Wall time.
        build_seconds: Of these, builds.
        measure_seconds: Of these, measurements.
        failures: Device -> the first reason why it has no latency.
    """

    table: str
    devices: list[str]
    configs: int = 0
    pairs: int = 0
    known: int = 0
    measured: int = 0
    repeated: int = 0
    failed: int = 0
    complete: bool = False
    seconds: float = 0.0
    build_seconds: float = 0.0
    measure_seconds: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def seconds_per_pair(self) -> float | None:
        """Wall seconds for a pair of this run, everything included; None when there was none."""
        done = self.measured + self.failed
        return self.seconds / done if done else None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {**asdict(self), "seconds_per_pair": self.seconds_per_pair}


class PoolBuild:
    """Builds and measures what is missing in a table.

    Args:
        store: Receives what was measured.
        table: Name of the table, which has the devices.
        space: Executed by all devices.
        pool: The devices.
        opened: The same, by name, to measure with.
        report: Counts what is done.
        progress: Told how far it is.
        repeats: Share of the pairs that are measured twice.
        processes: Configs built at the same time.
    """

    def __init__(
        self,
        store: Store,
        table: str,
        space: SearchSpace,
        pool: Sequence[PoolDevice],
        opened: Mapping[str, Device],
        report: PoolReport,
        progress: Progress,
        repeats: float,
        processes: int,
    ) -> None:
        self.store = store
        self.table = table
        self.space = space
        self.pool = pool
        self.opened = opened
        self.report = report
        self.progress = progress
        self.repeats = repeats
        self.processes = processes
        self.lock, self.waiting = HostLock(), announce(progress)
        self._local = threading.local()
        self._builders: list[Device | Worker] = []

    def run(self, todo: Mapping[Config, Sequence[str]], deadline: float | None) -> bool:
        """Do what is left; whether everything is done.

        Args:
            todo: Config -> names of the devices that have no latency for it.
            deadline: `time.monotonic()` until which a batch must end, by what others took.
        """
        left = list(todo)
        began, pairs = time.monotonic(), 0
        self._tell()
        with ThreadPoolExecutor(self.processes) as threads:
            try:
                supernet = random_supernet(self.space) if left else None
                while left and supernet is not None:
                    now = time.monotonic()
                    pace = (now - began) / pairs if pairs else 0.0
                    room = math.inf if deadline is None else deadline - now
                    batch = _fitting({c: todo[c] for c in left[:BATCH]}, pace, room)
                    if not batch:
                        return False
                    self._batch(supernet, batch, threads)
                    pairs += sum(map(len, batch.values()))
                    left = left[len(batch) :]
            finally:
                for builder in self._builders:
                    builder.close()
        return True

    def _batch(
        self,
        supernet: Supernet,
        batch: Mapping[Config, Sequence[str]],
        threads: ThreadPoolExecutor,
    ) -> None:
        purpose = f"latency table {self.table}"
        remove_abandoned(runtime_folder(), re.compile(rf"{_TEMPORARY}.*"))
        with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=runtime_folder()) as folder:
            start = time.monotonic()
            with self.lock.shared(f"builds for {purpose}", on_wait=self.waiting):
                jobs = [
                    (supernet.extract(config), Path(folder) / config.key, names)
                    for config, names in batch.items()
                ]
                built = dict(zip(batch, threads.map(self._build, jobs), strict=True))
            self.report.build_seconds += time.monotonic() - start
            with self.lock.exclusive(f"measurement for {purpose}", on_wait=self.waiting):
                start = time.monotonic()
                first, second = self._measure(batch, built)
                self.report.measure_seconds += time.monotonic() - start
        records = []
        for (config, name), outcome in first.items():
            if isinstance(outcome, str):
                self.report.failures.setdefault(name, outcome)
                records.append(LatencyRecord(config.key, name, None, error=outcome))
                continue
            again = second.get((config, name))
            repeat = again if isinstance(again, float) else None
            self.report.repeated += repeat is not None
            records.append(LatencyRecord(config.key, name, outcome, repeat))
        self.store.latencies.record(
            self.table, {config.key: config.to_json() for config in batch}, records
        )

    # -- builds ---------------------------------------------------------------------------------

    def _build(self, job: tuple[Subnet, Path, Sequence[str]]) -> dict[str, Build | str]:
        """Name of each device -> its build of one config, or why there is none."""
        subnet, folder, names = job
        builders = self._thread_builders()
        keys = {name: self.opened[name].build_key for name in names}
        found: dict[str, Build | str] = {}
        for number, key in enumerate(dict.fromkeys(keys.values())):
            try:
                found[key] = builders[key].build(subnet, subnet.specs, folder / str(number))
            except KernelLibraryError:
                raise
            except (CompilerError, ChildBug) as error:
                found[key] = _reason(error)
        return {name: found[key] for name, key in keys.items()}

    def _thread_builders(self) -> dict[str, Device]:
        """Build key -> a device that builds in children of this thread."""
        builders: dict[str, Device] | None = getattr(self._local, "builders", None)
        if builders is None:
            most = max(device.config.threads for device in self.pool)
            compiler = Worker("compiler", BuildError, threads=most)
            self._builders.append(compiler)
            builders = self._local.builders = {}
            for device in self.pool:
                key = self.opened[device.name].build_key
                if key not in builders:
                    builders[key] = make_device(device.config)
                    builders[key].compile_in(compiler)
                    self._builders.append(builders[key])
        return builders

    # -- measurements ---------------------------------------------------------------------------

    def _measure(
        self,
        batch: Mapping[Config, Sequence[str]],
        built: Mapping[Config, Mapping[str, Build | str]],
    ) -> tuple[Outcomes, Outcomes]:
        """What each pair took at first, and some of them again after all others."""
        first: Outcomes = {}
        second: Outcomes = {}
        for name, device in self.opened.items():
            builds = {config: built[config][name] for config in batch if name in batch[config]}
            ready = {c: build for c, build in builds.items() if isinstance(build, Build)}
            failed = {c: reason for c, reason in builds.items() if isinstance(reason, str)}
            found = {**failed, **_time(device, ready)}
            first.update(((config, name), outcome) for config, outcome in found.items())
            lost = sum(isinstance(outcome, str) for outcome in found.values())
            self.report.failed += lost
            self.report.measured += len(found) - lost
            self._tell()
        for name, device in self.opened.items():
            again = {
                config: build
                for config in batch
                if isinstance(first.get((config, name)), float)
                and isinstance(build := built[config][name], Build)
                and _drawn(config, name) < self.repeats
            }
            second.update(((c, name), found) for c, found in _time(device, again).items())
        return first, second

    def _tell(self) -> None:
        report = self.report
        done = report.known + report.measured + report.failed
        self.progress(f"latencies of {self.table}", done, report.pairs)


def random_supernet(space: SearchSpace) -> Supernet:
    """A supernet of seeded random weights, its quantisers calibrated on noise."""
    import torch

    from supernet import build_supernet

    largest = space.max_config()
    first = space.layer_specs(largest)[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        supernet = build_supernet(space)
        images = torch.rand(8, first.in_channels, first.in_size, first.in_size)
        supernet.calibrate([(largest, images)])
    return supernet.eval()


def _fitting(
    batch: Mapping[Config, Sequence[str]], pace: float, room: float
) -> dict[Config, Sequence[str]]:
    """The first configs of a batch, as many as end in `room` seconds at `pace` seconds a pair."""
    found: dict[Config, Sequence[str]] = {}
    for config, names in batch.items():
        room -= pace * len(names)
        if room < 0:
            break
        found[config] = names
    return found


def _time(device: Device, builds: Mapping[Config, Build]) -> dict[Config, Outcome]:
    """What each binary takes; one that crashes costs the others nothing, and a session that
    disagrees with itself is repeated once."""
    try:
        found = device.time(list(builds.values()), MEASUREMENT)
        if _unsteadiness(found) > STEADY:
            again = device.time(list(builds.values()), MEASUREMENT)
            found = min(found, again, key=_unsteadiness)
    except (CompilerError, ChildBug) as error:
        if len(builds) == 1:
            return dict.fromkeys(builds, _reason(error))
        alone = [_time(device, {config: build}) for config, build in builds.items()]
        return {config: outcome for one in alone for config, outcome in one.items()}
    return {c: measured.median_ms for c, measured in zip(builds, found, strict=True)}


def _unsteadiness(session: Sequence[Measurement]) -> float:
    return max((abs(measured.aa_ratio - 1) for measured in session), default=0.0)


def _drawn(config: Config, device: str) -> float:
    """A number from 0 to 1 that belongs to a pair."""
    digest = hashlib.sha256(f"{config.key} {device}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
