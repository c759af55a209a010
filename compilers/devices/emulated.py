"""An ARM processor, emulated: binaries are cross-compiled and run by qemu-user, never timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from compilers.built import Build
from compilers.devices.base import DEVICES, DeviceConfig
from compilers.devices.host_built import HostBuiltDevice
from compilers.emulation.calls import Call, call_kernels
from compilers.emulation.qemu import Emulator
from compilers.emulation.runner import EmulatedRunner
from compilers.errors import BuildError, DeviceError, TargetError
from compilers.measurement import Measurement, MeasurementConfig
from compilers.targets import Isa, find_isa
from compilers.tvm_runtime import find_runtime
from spaces.layer_spec import Operator

ARCHITECTURE = "aarch64"
NATIVE = "neon_dot"


class EmulatedConfig(DeviceConfig):
    """Settings of a device of kind `emulated_aarch64`.

    Attributes:
        runtime: Folder of the two unpacked wheels that hold TVM's runtime for aarch64.
    """

    kind: str = "emulated_aarch64"
    runtime: Annotated[str, Field(min_length=1)]


@DEVICES.register("emulated_aarch64")
class EmulatedAarch64(HostBuiltDevice):
    """The processor of `config.isa` (`native`: a Cortex-A76), one thread, under qemu-user. See
    `Device`.

    Outputs are those of the processor. An emulator's time is not, so this device refuses to
    measure latencies; what it has instead are counts of executed instructions.

    Raises:
        DeviceError: qemu, the cross compiler or TVM's runtime for aarch64 is missing, or the
            instruction set is of another architecture.
    """

    Config = EmulatedConfig
    has_latencies = False
    config: EmulatedConfig

    def __init__(self, config: EmulatedConfig, cache: str | Path | None = None) -> None:
        super().__init__(config, cache)
        assert self.cache is not None
        if config.threads != 1:
            raise DeviceError(f"device {config.name}: threads is {config.threads}; allowed: 1")
        try:
            self._isa = find_isa(NATIVE if config.isa == "native" else config.isa)
            if self._isa.architecture != ARCHITECTURE:
                raise TargetError(
                    f"isa {config.isa!r} is of {self._isa.architecture}; allowed: native, {NATIVE}"
                )
            self.emulator = Emulator(self._isa, self.cache)
            runtime = find_runtime(ARCHITECTURE, config.runtime)
        except (TargetError, DeviceError, BuildError) as error:
            raise DeviceError(f"device {config.name}: {error}") from error
        self.runner = EmulatedRunner(self.emulator, runtime)

    @property
    def hardware(self) -> str:
        """See `Device.hardware`."""
        return f"emulated {self._isa.mcpu} (qemu-{ARCHITECTURE})"

    @property
    def isa(self) -> Isa:
        """See `HostBuiltDevice.isa`."""
        return self._isa

    def instructions(self, builds: Sequence[Build]) -> list[int]:
        """See `Device.instructions`."""
        return [self.runner.instructions(build) for build in builds]

    def time(
        self, builds: Sequence[Build], config: MeasurementConfig | None = None
    ) -> list[Measurement]:
        """Refused: the time that an emulator takes says nothing about the processor."""
        raise self._cannot("measure latencies; it is emulated, and counts instructions instead")

    def _target(self) -> dict[str, Any]:
        emulation = {"cache": str(self.cache), "runtime": self.config.runtime}
        return {**super()._target(), "emulation": emulation}

    def _check_kernels(self, operator: Operator, scheme: str) -> None:
        self._check_trials(operator, scheme, self._difference)

    def _difference(self, trial: Mapping[str, Any]) -> float:
        inputs = [np.load(path, allow_pickle=False) for path in trial["inputs"]]
        output = np.zeros(trial["shape"], trial["dtype"])
        call = Call(trial["symbol"], (*inputs, output))
        call_kernels(self.emulator, Path(trial["library"]), [call])
        expected = np.load(trial["expected"], allow_pickle=False)
        return float(np.abs(output - expected).max())

    def _execute(self, command: str, arguments: Mapping[str, Any]) -> None:
        assert command == "run"
        library, given, returned = (Path(arguments[k]) for k in ("library", "input", "output"))
        self.runner.run(library, given, returned, arguments["output_shape"])
