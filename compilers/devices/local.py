"""This machine's CPU, restricted to one instruction set and one thread."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compilers.built import BUILD_FILE, INPUT_FILE, Build, build_versions
from compilers.devices.base import DEVICES, Device, DeviceConfig
from compilers.errors import (
    BuildError,
    ChildCrashError,
    CompilerError,
    DeviceError,
    KernelError,
    MeasurementError,
    MismatchError,
    TargetError,
)
from compilers.isolation import ChildBug, Worker
from compilers.kernel_library import generator_key
from compilers.candidate_timing import CompiledKernel, KernelLatency, KernelTimingConfig
from compilers.measurement import Measurement, MeasurementConfig
from compilers.targets import resolve_isa
from spaces.capabilities import DeviceCapabilities
from spaces.files import atomic_directory, atomic_write_text, sha256_file
from spaces.layer_spec import LayerSpec, Operator

if TYPE_CHECKING:
    from supernet.extract import Subnet

SCHEMES = ("fp32", "w8a8")
PROBE_FILE = "probe.json"
PROBE_TIMEOUT = 120.0
BUILD_TIMEOUT = 600.0
RUN_TIMEOUT = 600.0
# Crashes that generated code causes; other signals come from outside, such as SIGKILL when memory
# runs out.
_FAULTS = {
    signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP
}  # fmt: skip
SAMPLES = 8
"""Inputs of the check after a build when the caller gives none."""


def default_cache() -> Path:
    """Where compiled kernels are kept: `$NETCARVE_CACHE`, else the user's cache folder."""
    if configured := os.environ.get("NETCARVE_CACHE"):
        return Path(configured)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "netcarve"


def processor_name() -> str:
    """The name that Linux gives to this machine's processor; `unknown CPU` where it gives none."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "unknown CPU")


@DEVICES.register("local_cpu")
class LocalCpu(Device):
    """This CPU with `config.isa`, one thread, batch 1. See `Device`.

    Builds happen in one long-lived child, runs and measurements in another that maps TVM's
    runtime only and is pinned to one processor. Either is replaced when it crashes.
    """

    def __init__(self, config: DeviceConfig, cache: str | Path | None = None) -> None:
        super().__init__(config, cache or default_cache())
        for name, value in (("threads", config.threads), ("batch", config.batch)):
            if value != 1:
                raise DeviceError(f"device {config.name}: {name} is {value}; allowed: 1")
        try:
            self.isa = resolve_isa(config.isa)
        except TargetError as error:
            raise DeviceError(
                f"device {config.name}: {error} (this CPU: {self.hardware})"
            ) from error
        cpus = sorted(os.sched_getaffinity(0))
        self._compiler = Worker("compiler", BuildError)
        # The last processor: interrupts and daemons prefer the first.
        self._runtime = Worker("runtime", MeasurementError, cpus=(cpus[-1],))

    @property
    def hardware(self) -> str:
        """See `Device.hardware`."""
        return processor_name()

    def probe(self) -> DeviceCapabilities:
        """See `Device.probe`: small kernels are compiled, run and checked in a child.

        An operator counts when its float32 kernels are right, a precision when all those
        operators are right in it. A result without failures is kept beside the compiled kernels,
        for this processor and this version of the templates.
        """
        passed = self._passed()
        operators = frozenset(o for o in Operator if (o, "fp32") in passed)
        return DeviceCapabilities(
            isa=self.isa.name,
            threads=1,
            batch=1,
            operators=operators,
            schemes=frozenset(
                s for s in SCHEMES if operators and all((o, s) in passed for o in operators)
            ),
            hardware=self.hardware,
        )

    def _passed(self) -> set[tuple[Operator, str]]:
        assert self.cache is not None
        everything = {(operator, scheme) for operator in Operator for scheme in SCHEMES}
        record = self.cache / "kernels" / self.isa.name / generator_key() / PROBE_FILE
        known = {
            "hardware": self.hardware,
            "probe": sha256_file(Path(__file__).parents[1] / "probe.py"),
            "passed": sorted(f"{o} {s}" for o, s in everything),
        }
        with contextlib.suppress(OSError, ValueError):
            if json.loads(record.read_text()) == known:
                return everything
        passed = {pair for pair in sorted(everything) if self._executes(*pair)}
        if passed == everything:
            try:
                record.parent.mkdir(parents=True, exist_ok=True)
                atomic_write_text(record, json.dumps(known))
            except OSError as error:
                raise DeviceError(
                    f"device {self.config.name}: its probe cannot be stored in {record.parent}: "
                    f"{error}; make room, or set NETCARVE_CACHE to another folder"
                ) from error
        return passed

    def _executes(self, operator: Operator, scheme: str) -> bool:
        request = {"operator": operator, "scheme": scheme, "isa": self.isa.name}
        try:
            self._compiler.request("probe", request, PROBE_TIMEOUT)
        except (MismatchError, KernelError, ChildBug):
            return False
        except (CompilerError, OSError, MemoryError) as error:
            # A kernel that crashes takes its child along; the next request gets a new one.
            if isinstance(error, ChildCrashError) and error.signal in _FAULTS:
                return False
            raise DeviceError(
                f"device {self.config.name}: whether it executes {operator} in {scheme} could not "
                f"be found out; probe it again. {error}"
            ) from error
        return True

    def build(
        self,
        subnet: Subnet,
        specs: Sequence[LayerSpec],
        out_dir: str | Path,
        sample: NDArray[np.float32] | None = None,
    ) -> Build:
        """See `Device.build`."""
        from supernet.extract import save_subnet

        assert self.cache is not None
        if sample is None:
            shape = (SAMPLES, specs[0].in_channels, specs[0].in_size, specs[0].in_size)
            sample = np.random.default_rng(0).random(shape, dtype=np.float32)
        with atomic_directory(out_dir) as folder:
            save_subnet(subnet, folder)
            np.save(folder / INPUT_FILE, np.ascontiguousarray(sample, np.float32))
            request = {
                "folder": str(folder),
                "isa": self.isa.name,
                "kernels": str(self.cache / "kernels"),
            }
            report = self._compiler.request("build", request, BUILD_TIMEOUT)
            report["specs"] = [spec.to_json() for spec in specs]
            report["hardware"] = self.hardware
            report["versions"] = build_versions()
            atomic_write_text(folder / BUILD_FILE, json.dumps(report, indent=1))
        return Build.load(out_dir)

    def run(self, build: Build, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Device.run`."""
        with tempfile.TemporaryDirectory(prefix="netcarve-run-") as folder:
            given, returned = Path(folder) / "x.npy", Path(folder) / "y.npy"
            np.save(given, np.ascontiguousarray(x, np.float32))
            request = {
                "library": str(build.library), "input": str(given), "output": str(returned)
            }  # fmt: skip
            self._runtime.request("run", request, RUN_TIMEOUT)
            logits: NDArray[np.float32] = np.load(returned, allow_pickle=False)
            return logits

    def time(
        self, builds: Sequence[Build], config: MeasurementConfig | None = None
    ) -> list[Measurement]:
        """See `Device.time`."""
        if not builds:
            return []
        request: dict[str, Any] = {
            "entries": [
                {"library": str(build.library), "input_shape": build.input_shape}
                for build in builds
            ],
            "config": asdict(config or MeasurementConfig()),
        }
        answers = self._runtime.request("time", request, RUN_TIMEOUT)
        return [Measurement.from_json(answer) for answer in answers]

    def time_kernel(
        self, candidates: Sequence[CompiledKernel], config: KernelTimingConfig, timeout: float
    ) -> list[KernelLatency]:
        """See `Device.time_kernel`."""
        request = {"candidates": [asdict(one) for one in candidates], "config": asdict(config)}
        answers = self._runtime.request("time_kernel", request, timeout)
        return [KernelLatency.from_json(answer) for answer in answers]

    def export_onnx(self, build: Build, path: str | Path) -> float:
        """See `Device.export_onnx`."""
        request = {"folder": str(build.folder), "path": str(path)}
        answer = self._compiler.request("onnx", request, BUILD_TIMEOUT)
        return float(answer["difference"])

    def close(self) -> None:
        """See `Device.close`."""
        self._compiler.close()
        self._runtime.close()
