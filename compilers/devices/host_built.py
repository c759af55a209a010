"""Devices whose binaries are compiled, and checked, on this host, wherever they run."""

from __future__ import annotations

import signal
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compilers.built import Build
from compilers.devices.base import Device, DeviceConfig
from compilers.devices.build_folder import run_through_files, write_build, write_onnx_twin
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
from compilers.host import processor_name
from compilers.isolation import ChildBug, Worker
from compilers.measurement import Measurement, MeasurementConfig
from compilers.targets import Isa, resolve_isa
from spaces.cache import default_cache
from spaces.capabilities import PROBED, DeviceCapabilities, executed_schemes
from spaces.layer_spec import LayerSpec, Operator

if TYPE_CHECKING:
    from supernet.extract import Subnet

PROBE_TIMEOUT = 120.0
BUILD_TIMEOUT = 600.0
# Crashes that generated code causes; other signals come from outside, such as SIGKILL when memory
# runs out.
_FAULTS = {
    signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP
}  # fmt: skip


def executable(build: Build) -> dict[str, Any]:
    """What the child that runs a binary is told of it."""
    return {
        "library": str(build.library),
        "input_shape": build.input_shape,
        "input_dtype": build.input_dtype,
        "output_shape": build.output_shape,
    }


class HostBuiltDevice(Device):
    """A device of batch 1 whose binaries this host compiles. See `Device`.

    Builds happen in one long-lived child, which is replaced when it crashes. Each is run and
    checked where it is compiled, so this host must execute the device's instruction set too, or
    emulate it.
    """

    def __init__(self, config: DeviceConfig, cache: str | Path | None = None) -> None:
        super().__init__(config, cache or default_cache())
        if config.batch != 1:
            raise DeviceError(f"device {config.name}: batch is {config.batch}; allowed: 1")
        if config.threads < 1:
            raise DeviceError(f"device {config.name}: threads is {config.threads}; allowed: >= 1")
        self._compiler = Worker("compiler", BuildError, threads=config.threads)

    @property
    @abstractmethod
    def isa(self) -> Isa:
        """Instruction set of the device's binaries, with the threads of one inference."""

    @abstractmethod
    def _check_kernels(self, operator: Operator, scheme: str) -> None:
        """Run the kernels of one operator in one precision on the device.

        Raises:
            MismatchError: A kernel's output is wrong, or it does not run.
            KernelError: No template covers it.
        """

    @abstractmethod
    def _execute(self, command: str, arguments: Mapping[str, Any]) -> Any:
        """Send `run` or `time` of `compilers.runtime_commands` to the child that runs binaries.

        Raises:
            CompilerError: As `Device.run` and `Device.time`.
        """

    def _check_trials(
        self, operator: Operator, scheme: str, difference: Callable[[Mapping[str, Any]], float]
    ) -> None:
        """`_check_kernels` with kernels that this host compiles and another processor runs.

        Args:
            operator: What the kernels compute.
            scheme: Their precision.
            difference: Runs one kernel and tells how wrong its output is.
        """
        assert self.cache is not None
        with tempfile.TemporaryDirectory(prefix="netcarve-probe-") as folder:
            request = {
                "operator": operator,
                "scheme": scheme,
                **self._target(),
                "kernels": str(self.cache / "kernels"),
                "folder": folder,
            }
            for trial in self._compiler.request("trials", request, PROBE_TIMEOUT):
                try:
                    found = difference(trial)
                except MeasurementError as error:
                    raise MismatchError(str(error)) from error
                if not found <= trial["allowed"]:
                    raise MismatchError(f"{trial['symbol']} is wrong by up to {found:g}")

    def compile_in(self, compiler: Worker) -> None:
        """See `Device.compile_in`."""
        self._compiler = compiler

    def _target(self) -> dict[str, Any]:
        """What the compiling child is told of the device."""
        return {"isa": self.isa.name, "threads": self.isa.threads}

    def _resolve(self, isa: str, flags: frozenset[str] | None = None) -> Isa:
        """The instruction set that a user named, on a CPU with `flags`; on this one when None."""
        try:
            return resolve_isa(isa, flags).with_threads(self.config.threads)
        except TargetError as error:
            raise DeviceError(
                f"device {self.config.name}: {error} (this CPU: {processor_name()})"
            ) from error

    def probe(self) -> DeviceCapabilities:
        """See `Device.probe`: small kernels are compiled, run on the device and checked.

        An operator counts when its float32 kernels are right, a precision when all those
        operators that can have it are right in it.
        """
        passed = self._passed()
        operators = frozenset(o for o in Operator if (o, "fp32") in passed)
        return DeviceCapabilities(
            isa=self.isa.name,
            threads=self.config.threads,
            batch=self.config.batch,
            operators=operators,
            schemes=executed_schemes(operators, passed),
            hardware=self.hardware,
        )

    def _passed(self) -> set[tuple[Operator, str]]:
        return {pair for pair in sorted(PROBED) if self._executes(*pair)}

    def _executes(self, operator: Operator, scheme: str) -> bool:
        try:
            self._check_kernels(operator, scheme)
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
        assert self.cache is not None
        request = {**self._target(), "kernels": str(self.cache / "kernels")}

        def compile_(folder: Path) -> dict[str, Any]:
            report: dict[str, Any] = self._compiler.request(
                "build", {**request, "folder": str(folder)}, BUILD_TIMEOUT
            )
            return report

        return write_build(subnet, specs, out_dir, sample, compile_)

    def run(self, build: Build, x: NDArray[Any]) -> NDArray[np.float32]:
        """See `Device.run`."""
        binary = executable(build)
        return run_through_files(build, x, lambda files: self._execute("run", {**binary, **files}))

    def time(
        self, builds: Sequence[Build], config: MeasurementConfig | None = None
    ) -> list[Measurement]:
        """See `Device.time`."""
        if not builds:
            return []
        request = {
            "entries": [executable(build) for build in builds],
            "config": asdict(config or MeasurementConfig()),
        }
        return [Measurement.from_json(answer) for answer in self._execute("time", request)]

    def export_onnx(self, build: Build, path: str | Path) -> float:
        """See `Device.export_onnx`."""
        return write_onnx_twin(self._compiler, build.folder, path)

    def close(self) -> None:
        """See `Device.close`."""
        self._compiler.close()
