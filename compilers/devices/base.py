"""The contract of a device: a black box that builds, runs and times subnets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compilers.built import Build
from compilers.errors import DeviceError
from spaces.capabilities import DeviceCapabilities
from spaces.layer_spec import LayerSpec, Operator
from spaces.registry import Registry
from spaces.settings import explain

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from compilers.candidate_timing import CompiledKernel, KernelLatency, KernelTimingConfig
    from compilers.isolation import Worker
    from compilers.kernel_timing import InferenceTiming
    from compilers.measurement import Measurement, MeasurementConfig
    from compilers.roofline import Roofline
    from supernet.extract import Subnet

DEVICES: Registry[type[Device]] = Registry("device", "netcarve.devices")
"""Kinds of devices by name; the `kind` of a `DeviceConfig`."""


class DeviceConfig(BaseModel):
    """What a user writes about a device. A kind with settings of its own has a subclass of this.

    Attributes:
        name: What reports call it.
        kind: A name in `DEVICES`.
        isa: Instruction set to compile for, a name that the kind of device knows; `native`: the
            best it has.
        threads: Threads of one inference, each on a processor of its own.
        batch: Inputs of one inference.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    kind: str = "local_cpu"
    isa: str = "native"
    threads: int = 1
    batch: int = 1


def float_capabilities(config: DeviceConfig, isa: str, hardware: str) -> DeviceCapabilities:
    """What a device is that executes every operator of a subnet, all in float32."""
    return DeviceCapabilities(
        isa=isa,
        threads=config.threads,
        batch=config.batch,
        operators=frozenset(Operator),
        schemes=frozenset({"fp32"}),
        hardware=hardware,
    )


class Device(ABC):
    """One device. Called by the search and the command line, from one thread at a time.

    Everything that can crash happens in child processes of the device, which `close` ends; a
    device may be used again after `close`. No method leaves half-written files. Making a device
    is cheap and asks nobody: what is not on this machine is looked for by the first method that
    needs it, and any of them may raise `DeviceConnectionError` when it is not found.

    Attributes:
        Config: The settings of this kind of device.
        deploys: Whether its builds hold a library, and can become bundles.
        has_latencies: Whether `time` measures; an emulated device refuses.

    Args:
        config: What the user wrote.
        cache: Folder of compiled kernels, shared by devices and processes.

    Raises:
        DeviceError: The machine cannot be this device.
    """

    Config: ClassVar[type[DeviceConfig]] = DeviceConfig
    deploys: ClassVar[bool] = True
    has_latencies: ClassVar[bool] = True

    def __init__(self, config: DeviceConfig, cache: str | Path | None = None) -> None:
        self.config = config
        self.cache = Path(cache) if cache is not None else None

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    @abstractmethod
    def hardware(self) -> str:
        """Name of the processor, as in the capabilities; found out without running anything."""

    @property
    def build_key(self) -> str:
        """What builds depend on beside the subnet: devices of an equal key can run and time each
        other's builds."""
        return self.config.model_dump_json()

    def compile_in(self, compiler: Worker) -> None:
        """Use a child that several devices share, and any of them closes, to compile and to probe.

        Args:
            compiler: Of role `compiler`, with at least as many threads as the device; devices of
                one thread only may share it.
        """
        del compiler

    @abstractmethod
    def probe(self) -> DeviceCapabilities:
        """What this device executes, found out on the device.

        Raises:
            DeviceError: Something else than the device kept it from being found out, such as a
                full disk or a machine too busy; to be probed again.
        """

    @abstractmethod
    def build(
        self,
        subnet: Subnet,
        specs: Sequence[LayerSpec],
        out_dir: str | Path,
        sample: NDArray[np.float32] | None = None,
    ) -> Build:
        """Compile `subnet` into `out_dir`, replacing what is there, and check its outputs.

        Args:
            subnet: The extracted module.
            specs: Its layers.
            out_dir: Receives the build.
            sample: Inputs [n, C, R, R] float32 for the check; seeded noise when None.

        Raises:
            UnsupportedOperatorError: The subnet holds what no kernel executes.
            MismatchError: The binary's logits differ from the module's.
            BuildError: The child process failed.
            ChildCrashError: The child process crashed.
            ChildTimeoutError: It took too long.
        """

    @abstractmethod
    def run(self, build: Build, x: NDArray[Any]) -> NDArray[np.float32]:
        """Results [n, ...] of inputs [n, ...], by the binary, `config.batch` at a time.

        Args:
            build: Its `output_shape` is that of one inference: [batch, classes] for logits.
            x: Inputs [n, C, R, R], in its `input_dtype`; n is any number above 0.

        Raises:
            MeasurementError: `x` is of another kind than `input_dtype`, or the child process
                failed.
            ChildCrashError: The child process crashed.
            ChildTimeoutError: It took too long.
        """

    @abstractmethod
    def time(
        self, builds: Sequence[Build], config: MeasurementConfig | None = None
    ) -> list[Measurement]:
        """Latencies of several builds, measured interleaved in one process of the device.

        Raises:
            DeviceError: This kind of device has no latencies: it is emulated.
            MeasurementError: The child process failed.
            ChildCrashError: The child process crashed.
            ChildTimeoutError: It took too long.
        """

    def time_kernel(
        self, candidates: Sequence[CompiledKernel], config: KernelTimingConfig, timeout: float
    ) -> list[KernelLatency]:
        """Latencies of the candidates for one kernel, measured interleaved in one child process.

        Args:
            candidates: Compiled for this device.
            config: How long.
            timeout: Seconds after which the child is stopped.

        Raises:
            DeviceError: This kind of device cannot time single kernels.
            MeasurementError, ChildCrashError, ChildTimeoutError: As `profile`.
        """
        del candidates, config, timeout
        raise self._cannot("time single kernels")

    def instructions(self, builds: Sequence[Build]) -> list[int]:
        """Instructions that one inference of each build executes, under emulation.

        Raises:
            DeviceError: This kind of device is not emulated.
            MeasurementError: The emulator failed.
            ChildCrashError: The binary crashed.
            ChildTimeoutError: It took too long.
        """
        raise self._cannot("count instructions")

    def profile(self, build: Build, config: MeasurementConfig | None = None) -> InferenceTiming:
        """Latencies of an inference and of each of its kernel calls, in one child process.

        The peak memory is that of one inference when the device was not used before.

        Raises:
            DeviceError: This kind of device cannot time single kernels.
            MeasurementError: The child process failed.
            ChildCrashError: The child process crashed.
            ChildTimeoutError: It took too long.
        """
        raise self._cannot("time single kernels")

    def roofline(self) -> Roofline:
        """The peak rates and bandwidths of one thread, measured on the instruction set built for.

        Raises:
            DeviceError: This kind of device cannot measure them.
            MeasurementError, ChildCrashError, ChildTimeoutError: As `profile`.
        """
        raise self._cannot("measure its roofline")

    def _cannot(self, what: str) -> DeviceError:
        return DeviceError(
            f"device {self.config.name}: the kind {self.config.kind!r} cannot {what}"
        )

    @abstractmethod
    def export_onnx(self, build: Build, path: str | Path) -> float:
        """Write the ONNX twin of a build, checked in ONNX Runtime.

        Returns:
            Largest difference from the module's sample output, relative to its largest logit.
        """

    @abstractmethod
    def close(self) -> None:
        """End the child processes."""


def device_identity(config: DeviceConfig, capabilities: DeviceCapabilities) -> dict[str, Any]:
    """What latencies of kernels belong to: a device's settings and its hardware, JSON values."""
    settings = config.model_dump(mode="json") | {"isa": capabilities.isa}
    return {"config": settings, "hardware": capabilities.hardware}


def parse_device(settings: Mapping[str, Any]) -> DeviceConfig:
    """Validate what a user wrote about a device; the `kind` decides which settings there are.

    Raises:
        UnknownNameError: No such kind of device.
        DeviceError: An unknown key, or a value that is not allowed.
    """
    kind = settings.get("kind", DeviceConfig.model_fields["kind"].default)
    model = DEVICES.get(kind).Config if isinstance(kind, str) else DeviceConfig
    try:
        return model.model_validate(dict(settings))
    except ValidationError as error:
        raise DeviceError(f"device: {explain(error, model)}") from None


def make_device(config: DeviceConfig, cache: str | Path | None = None) -> Device:
    """The device that `config` describes.

    Raises:
        UnknownNameError: No such kind of device.
        DeviceError: This machine cannot be that device, or the settings are another kind's.
    """
    kind = DEVICES.get(config.kind)
    if not isinstance(config, kind.Config):
        raise DeviceError(
            f"device {config.name}: its settings are a {type(config).__name__}; "
            f"allowed for {config.kind}: {kind.Config.__name__}"
        )
    return kind(config, cache)
