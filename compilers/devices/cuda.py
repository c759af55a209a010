"""An NVIDIA GPU of this machine: subnets in float32, compiled by TVM's importer and schedules."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from compilers.built import Build
from compilers.cuda_driver import Gpu, find_gpus
from compilers.devices.base import DEVICES, Device, DeviceConfig, float_capabilities
from compilers.devices.build_folder import run_through_files, write_build, write_onnx_twin
from compilers.devices.host_built import BUILD_TIMEOUT, PROBE_TIMEOUT, executable
from compilers.errors import (
    BuildError,
    CompilerError,
    DeviceError,
    MeasurementError,
    UnsupportedOperatorError,
)
from compilers.isolation import Worker
from compilers.measurement import Measurement, MeasurementConfig
from spaces.capabilities import DeviceCapabilities
from spaces.layer_spec import LayerSpec
from spaces.quant_scheme import FP32

if TYPE_CHECKING:
    from supernet.extract import Subnet

NATIVE = "native"
RUN_TIMEOUT = 600.0
_ISA = re.compile(r"sm_(\d{1,2})(\d)")


class CudaConfig(DeviceConfig):
    """Settings of a device of kind `cuda`.

    Attributes:
        device: Number of the GPU, as CUDA counts those that this process may use.
    """

    kind: str = "cuda"
    device: Annotated[int, Field(ge=0)] = 0


@DEVICES.register("cuda")
class CudaDevice(Device):
    """An NVIDIA GPU, one inference at a time. See `Device`.

    Executes float32 alone. Builds hold a library, but it runs with TVM's CUDA runtime, which
    neither runner of a bundle loads: no bundle is made of them.

    Raises:
        DeviceError: There is no driver, or no such GPU, or it does not execute the instruction
            set; batch or threads are not 1.
    """

    Config = CudaConfig
    deploys = False
    config: CudaConfig

    def __init__(self, config: CudaConfig, cache: str | Path | None = None) -> None:
        super().__init__(config, cache)
        for name in ("batch", "threads"):
            if (value := getattr(config, name)) != 1:
                raise DeviceError(f"device {config.name}: {name} is {value}; allowed: 1")
        if config.isa != NATIVE and not _ISA.fullmatch(config.isa):
            raise DeviceError(
                f"device {config.name}: isa is {config.isa!r}; allowed: {NATIVE}, or that of an "
                "NVIDIA GPU, such as sm_80"
            )
        try:
            gpus = find_gpus()
        except DeviceError as error:
            raise DeviceError(f"device {config.name}: {error}") from error
        if config.device >= len(gpus):
            raise DeviceError(
                f"device {config.name}: device is {config.device}; allowed: 0 to {len(gpus) - 1} "
                f"({', '.join(gpu.name for gpu in gpus)})"
            )
        self._gpu = gpus[config.device]
        self._isa = self._resolve(self._gpu)
        self._compiler = Worker("compiler", BuildError)
        self._builder = Worker("cuda", BuildError)
        self._runtime = Worker("cuda", MeasurementError)

    def _resolve(self, gpu: Gpu) -> str:
        """The instruction set to compile for. A GPU runs code for its own, and for lower minor
        versions of the same major one."""
        isa = gpu.isa if self.config.isa == NATIVE else self.config.isa
        version = _ISA.fullmatch(isa)
        assert version is not None
        major, minor = map(int, version.groups())
        if major != gpu.capability[0] or minor > gpu.capability[1]:
            raise DeviceError(
                f"device {self.config.name}: isa is {isa!r}, which {gpu.name} does not execute; "
                f"allowed: {NATIVE}, sm_{gpu.capability[0]}0 to {gpu.isa}"
            )
        return isa

    @property
    def hardware(self) -> str:
        """See `Device.hardware`."""
        return self._gpu.name

    def probe(self) -> DeviceCapabilities:
        """See `Device.probe`: a subnet with every operator is built, run and compared."""
        try:
            self._builder.request("probe", self._target(), PROBE_TIMEOUT)
        except CompilerError as error:
            raise DeviceError(
                f"device {self.config.name} ({self.hardware}): its probe failed: {error}"
            ) from error
        return float_capabilities(self.config, self._isa, self.hardware)

    def build(
        self,
        subnet: Subnet,
        specs: Sequence[LayerSpec],
        out_dir: str | Path,
        sample: NDArray[np.float32] | None = None,
    ) -> Build:
        """See `Device.build`. A subnet with quantised layers is refused."""
        for spec in specs:
            if spec.precision != FP32:
                raise UnsupportedOperatorError(
                    f"{spec.site} is quantised; devices of kind cuda execute float32 only"
                )

        def compile_(folder: Path) -> dict[str, Any]:
            request = {**self._target(), "folder": str(folder)}
            report = self._builder.request("build", request, BUILD_TIMEOUT)
            target = {"isa": self._isa, "threads": 1, "cpu_flags": [], "kernels": []}
            return {**report, **target, "hardware": self.hardware}

        return write_build(subnet, specs, out_dir, sample, compile_)

    def run(self, build: Build, x: NDArray[Any]) -> NDArray[np.float32]:
        """See `Device.run`."""

        def execute(files: Mapping[str, str]) -> None:
            request = {**self._target(), **executable(build), **files}
            self._runtime.request("run", request, RUN_TIMEOUT)

        return run_through_files(build, x, execute)

    def time(
        self, builds: Sequence[Build], config: MeasurementConfig | None = None
    ) -> list[Measurement]:
        """See `Device.time`: by CUDA events, with warm caches."""
        if not builds:
            return []
        config = config or MeasurementConfig()
        if config.cache != "warm":
            raise MeasurementError(
                f"device {self.config.name}: cache is {config.cache!r}, but a GPU's caches cannot "
                "be flushed; allowed: warm"
            )
        entries = [executable(build) for build in builds]
        request = {**self._target(), "entries": entries, "config": asdict(config)}
        answers = self._runtime.request("time", request, RUN_TIMEOUT)
        return [Measurement.from_json(answer) for answer in answers]

    def export_onnx(self, build: Build, path: str | Path) -> float:
        """See `Device.export_onnx`."""
        return write_onnx_twin(self._compiler, build.folder, path)

    def close(self) -> None:
        """See `Device.close`."""
        for worker in (self._compiler, self._builder, self._runtime):
            worker.close()

    def _target(self) -> dict[str, Any]:
        return {"isa": self._isa, "device": self.config.device}
