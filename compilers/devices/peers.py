"""Other runtimes on this machine's CPU, to compare with: ONNX Runtime and eager PyTorch.

They execute every operator in float32. Quantised layers they compute, but not in declared widths:
ONNX Runtime decides by itself what it fuses into integer kernels, whose 16-bit sums saturate on
some processors, and PyTorch computes the integers in floating point. So their capabilities name no
quantised scheme, and a search for such a device stays in float32.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from compilers.built import ONNX_FILE, Build
from compilers.devices.base import DEVICES, Device, DeviceConfig, float_capabilities
from compilers.devices.build_folder import run_through_files, write_build, write_onnx_twin
from compilers.errors import BuildError, DeviceError, MeasurementError
from compilers.host import last_processors, processor_name
from compilers.isolation import Worker
from compilers.measurement import Measurement, MeasurementConfig
from spaces.capabilities import DeviceCapabilities
from spaces.layer_spec import LayerSpec

if TYPE_CHECKING:
    from supernet.extract import Subnet

NATIVE = "native"
TIMEOUT = 600.0


class PeerDevice(Device):
    """This CPU with a runtime that compiles nothing, `config.threads`, any batch. See `Device`.

    Runs and measurements happen in a child of their own, pinned to as many processors as threads.
    A build is the subnet itself and has no library, so it cannot become a bundle; it serves every
    number of threads and every batch. A latency is that of one inference of the whole batch.

    Attributes:
        runtime: See `peer_commands.PEERS`.
    """

    deploys = False
    runtime: ClassVar[str]

    def __init__(self, config: DeviceConfig, cache: str | Path | None = None) -> None:
        super().__init__(config, cache)
        if config.batch < 1:
            raise DeviceError(f"device {config.name}: batch is {config.batch}; allowed: >= 1")
        cpus = last_processors(config.threads, f"device {config.name}")
        if config.isa != NATIVE:
            raise DeviceError(
                f"device {config.name}: isa is {config.isa!r}, but {self.runtime} chooses its "
                f"instructions by itself; allowed: {NATIVE}"
            )
        self._compiler = Worker("compiler", BuildError)
        self._checker = Worker("peer", BuildError)
        self._runtime = Worker("peer", MeasurementError, cpus)

    @property
    def hardware(self) -> str:
        """See `Device.hardware`."""
        return processor_name()

    @property
    def build_key(self) -> str:
        """See `Device.build_key`."""
        return self.runtime

    def compile_in(self, compiler: Worker) -> None:
        """See `Device.compile_in`."""
        self._compiler = compiler

    def probe(self) -> DeviceCapabilities:
        """See `Device.probe`: every operator of a subnet is one of the runtime's own, float32."""
        return float_capabilities(self.config, NATIVE, self.hardware)

    def build(
        self,
        subnet: Subnet,
        specs: Sequence[LayerSpec],
        out_dir: str | Path,
        sample: NDArray[np.float32] | None = None,
    ) -> Build:
        """See `Device.build`. Subnets with quantised layers are built, too, to compare with."""

        def prepare(folder: Path) -> dict[str, Any]:
            start = time.perf_counter()
            self._write_model(folder)
            seconds = time.perf_counter() - start
            report = self._checker.request("check", self._request(folder=str(folder)), TIMEOUT)
            target = {"isa": NATIVE, "threads": self.config.threads, "cpu_flags": [], "kernels": []}
            return {**report, **target, "seconds": seconds}

        return write_build(subnet, specs, out_dir, sample, prepare)

    def run(self, build: Build, x: NDArray[Any]) -> NDArray[np.float32]:
        """See `Device.run`."""

        def execute(files: Mapping[str, str]) -> None:
            request = self._request(folder=str(build.folder), **files)
            self._runtime.request("run", request, TIMEOUT)

        return run_through_files(build, x, execute)

    def time(
        self, builds: Sequence[Build], config: MeasurementConfig | None = None
    ) -> list[Measurement]:
        """See `Device.time`."""
        if not builds:
            return []
        shapes = [(self.config.batch, *build.input_shape[1:]) for build in builds]
        entries = [
            {"folder": str(build.folder), "input_shape": shape}
            for build, shape in zip(builds, shapes, strict=True)
        ]
        request = self._request(entries=entries, config=asdict(config or MeasurementConfig()))
        return [
            Measurement.from_json(answer)
            for answer in self._runtime.request("time", request, TIMEOUT)
        ]

    def export_onnx(self, build: Build, path: str | Path) -> float:
        """See `Device.export_onnx`."""
        return write_onnx_twin(self._compiler, build.folder, path)

    def close(self) -> None:
        """See `Device.close`."""
        for worker in (self._compiler, self._checker, self._runtime):
            worker.close()

    def _write_model(self, folder: Path) -> None:
        """Turn the subnet in a folder into what the runtime loads, beside it."""

    def _request(self, **arguments: Any) -> dict[str, Any]:
        settings = {"threads": self.config.threads, "batch": self.config.batch}
        return {**arguments, "runtime": self.runtime, **settings}


@DEVICES.register("onnxruntime")
class OnnxRuntimeDevice(PeerDevice):
    """The ONNX twin of a subnet in ONNX Runtime. See `PeerDevice`."""

    runtime = "onnxruntime"

    def _write_model(self, folder: Path) -> None:
        write_onnx_twin(self._compiler, folder, folder / ONNX_FILE)


@DEVICES.register("torch")
class TorchDevice(PeerDevice):
    """The extracted module, called eagerly by PyTorch. See `PeerDevice`."""

    runtime = "torch"
