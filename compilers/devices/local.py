"""This machine's CPU, restricted to one instruction set and some threads."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compilers.built import Build
from compilers.candidate_timing import CompiledKernel, KernelLatency, KernelTimingConfig
from compilers.devices.base import DEVICES, DeviceConfig
from compilers.devices.host_built import PROBE_TIMEOUT, HostBuiltDevice, executable
from compilers.errors import DeviceError, MeasurementError
from compilers.host import last_processors, processor_name
from compilers.isolation import Worker
from compilers.kernel_library import generator_key
from compilers.kernel_timing import InferenceTiming
from compilers.measurement import MeasurementConfig
from compilers.roofline import Roofline
from compilers.targets import Isa
from spaces.capabilities import PROBED
from spaces.files import atomic_write_text, sha256_file
from spaces.layer_spec import Operator

RUN_TIMEOUT = 600.0


@DEVICES.register("local_cpu")
class LocalCpu(HostBuiltDevice):
    """This CPU with `config.isa`, `config.threads`, batch 1. See `Device`.

    Runs and measurements happen in a child of their own that maps TVM's runtime only and is
    pinned to as many processors as threads. It is replaced when it crashes.
    """

    def __init__(self, config: DeviceConfig, cache: str | Path | None = None) -> None:
        super().__init__(config, cache)
        self._isa = self._resolve(config.isa)
        cpus = last_processors(config.threads, f"device {config.name}")
        self._runtime = Worker("runtime", MeasurementError, cpus, config.threads)

    @property
    def hardware(self) -> str:
        """See `Device.hardware`."""
        return processor_name()

    @property
    def isa(self) -> Isa:
        """See `HostBuiltDevice.isa`."""
        return self._isa

    @property
    def build_key(self) -> str:
        """See `Device.build_key`."""
        return f"{self.isa.name} {self.isa.threads}"

    def _passed(self) -> set[tuple[Operator, str]]:
        """A result without failures is kept beside the compiled kernels, for this processor and
        this version of the templates."""
        assert self.cache is not None
        folder = self.cache / "kernels" / self.isa.name / generator_key()
        record = folder / f"probe-{self.isa.threads}.json"
        known = {
            "hardware": self.hardware,
            "probe": sha256_file(Path(__file__).parents[1] / "probe.py"),
            "passed": sorted(f"{o} {s}" for o, s in PROBED),
        }
        with contextlib.suppress(OSError, ValueError):
            if json.loads(record.read_text()) == known:
                return set(PROBED)
        passed = super()._passed()
        if passed == PROBED:
            try:
                record.parent.mkdir(parents=True, exist_ok=True)
                atomic_write_text(record, json.dumps(known))
            except OSError as error:
                raise DeviceError(
                    f"device {self.config.name}: its probe cannot be stored in {record.parent}: "
                    f"{error}; make room, or set NETCARVE_CACHE to another folder"
                ) from error
        return passed

    def _check_kernels(self, operator: Operator, scheme: str) -> None:
        request = {"operator": operator, "scheme": scheme, **self._target()}
        self._compiler.request("probe", request, PROBE_TIMEOUT)

    def _execute(self, command: str, arguments: Mapping[str, Any]) -> Any:
        return self._runtime.request(command, arguments, RUN_TIMEOUT)

    def profile(self, build: Build, config: MeasurementConfig | None = None) -> InferenceTiming:
        """See `Device.profile`."""
        request = {
            **executable(build),
            "symbols": [record.symbol for record in build.kernels],
            "config": asdict(config or MeasurementConfig()),
        }
        return InferenceTiming.from_json(self._execute("profile", request))

    def time_kernel(
        self, candidates: Sequence[CompiledKernel], config: KernelTimingConfig, timeout: float
    ) -> list[KernelLatency]:
        """See `Device.time_kernel`."""
        request = {"candidates": [asdict(one) for one in candidates], "config": asdict(config)}
        answers = self._runtime.request("time_kernel", request, timeout)
        return [KernelLatency.from_json(answer) for answer in answers]

    def roofline(self) -> Roofline:
        """See `Device.roofline`: compiled and run in a child pinned as measurements are."""
        if self.isa.threads != 1:
            raise self._cannot(f"measure a roofline of {self.isa.threads} threads; allowed: 1")
        with Worker("compiler", MeasurementError, cpus=self._runtime.cpus) as worker:
            answer = worker.request("roofline", {"isa": self.isa.name}, RUN_TIMEOUT)
        return Roofline.from_json(answer)

    def close(self) -> None:
        """See `Device.close`."""
        super().close()
        self._runtime.close()
