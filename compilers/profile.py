"""The profile of a bundle: where the time of an inference goes, and how much of it must be.

Each kernel call is measured and set against the measured roofline of the same processor. Work is
taken from the layers (multiply-accumulates) and from the tensors that were really passed (bytes).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import compilers.runtime as bundle_runtime
from compilers.built import CONVERSIONS, KernelRecord
from compilers.bundle import load_bundle, opened
from compilers.devices import Device, DeviceConfig, LocalCpu
from compilers.errors import BundleError, CompilerError
from compilers.kernel_timing import CallTiming, InferenceTiming
from compilers.measurement import Measurement, MeasurementConfig
from compilers.roofline import OPERATIONS_PER_MAC, Bound, Roofline
from compilers.runtime import BundleRuntimeError
from spaces.cost import layer_cost
from spaces.layer_spec import LayerSpec, Operator

CONFIG = MeasurementConfig(max_repeats=120)
"""How long a profile measures: dozens of kernels in one session, so fewer rounds at most."""


@dataclass(frozen=True, slots=True)
class KernelProfile:
    """One kernel call.

    Attributes:
        site: The layer that it executes, or the conversion in front of one.
        kernel: Class of the template.
        symbol: The compiled function.
        input_shape: Of the tensor that it reads.
        output_shape: Of the tensor that it writes.
        window: Height and width of a convolution's window, pixels; 1 for everything else.
        stride: Step of the window, pixels.
        input_dtype: `float32` or `uint8`.
        output_dtype: `float32` or `uint8`.
        arithmetic: What it computes in: `float32` or `int8`.
        macs: Multiply-accumulates of its layer.
        bytes: Everything that it reads and writes, constants included.
        measurement: Latency of one call, its data in the caches.
        share: Of the summed latency of all kernels, 0 to 1.
        bound: The least time that it could take, and why.
    """

    site: str
    kernel: str
    symbol: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    window: int
    stride: int
    input_dtype: str
    output_dtype: str
    arithmetic: str
    macs: int
    bytes: int
    measurement: Measurement
    share: float
    bound: Bound

    @property
    def seconds(self) -> float:
        """Median of the measured latency."""
        return self.measurement.median_ms / 1e3

    @property
    def gops(self) -> float:
        """10^9 operations per second, two for a multiply-accumulate."""
        return OPERATIONS_PER_MAC * self.macs / self.seconds / 1e9

    @property
    def gbytes_per_s(self) -> float:
        """10^9 bytes per second."""
        return self.bytes / self.seconds / 1e9

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return OPERATIONS_PER_MAC * self.macs / self.bytes

    @property
    def roofline_fraction(self) -> float:
        """The least time that it could take by the time that it takes, 0 to 1."""
        return self.bound.seconds / self.seconds

    def to_json(self) -> dict[str, Any]:
        """A JSON object; times in microseconds."""
        data = asdict(self)
        del data["measurement"], data["bound"]
        return data | {
            "median_us": 1e3 * self.measurement.median_ms,
            "p10_us": 1e3 * self.measurement.p10_ms,
            "p90_us": 1e3 * self.measurement.p90_ms,
            "repeats": self.measurement.repeats,
            "gops": self.gops,
            "gbytes_per_s": self.gbytes_per_s,
            "intensity": self.intensity,
            "limit": self.bound.limit,
            "roofline_fraction": self.roofline_fraction,
        }


@dataclass(frozen=True, slots=True)
class Profile:
    """What `profile_bundle` found.

    Attributes:
        hardware: Name of the processor.
        kernels: Kernel calls in the order of execution.
        latency: Of the whole inference, measured in one session with the kernels.
        cold: Of the whole inference, after the caches were flushed.
        roofline: Peaks of the processor.
        weight_bytes, workspace_bytes, peak_rss_bytes: See `InferenceTiming`.
    """

    hardware: str
    kernels: tuple[KernelProfile, ...]
    latency: Measurement
    cold: Measurement
    roofline: Roofline
    weight_bytes: int
    workspace_bytes: int
    peak_rss_bytes: int | None

    @property
    def kernel_sum_ms(self) -> float:
        """Summed medians of all kernel calls, ms."""
        return sum(kernel.measurement.median_ms for kernel in self.kernels)

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "hardware": self.hardware,
            "latency": self.latency.to_json(),
            "cold": self.cold.to_json(),
            "throttled": self.latency.throttled,
            "kernel_sum_ms": self.kernel_sum_ms,
            "kernel_sum_of_latency": self.kernel_sum_ms / self.latency.median_ms,
            "kernels": [kernel.to_json() for kernel in self.kernels],
            "roofline": self.roofline.to_json(),
            "memory": {
                "weight_bytes": self.weight_bytes,
                "workspace_bytes": self.workspace_bytes,
                "peak_rss_bytes": self.peak_rss_bytes,
            },
        }


def profile_bundle(
    path: str | Path,
    device: Device | None = None,
    measuring: AbstractContextManager[object] | None = None,
    config: MeasurementConfig = CONFIG,
) -> Profile:
    """Measure a bundle kernel by kernel; hashes and the processor are checked first.

    Args:
        path: Folder or .tar.gz.
        device: Where to run it, not used before; this CPU with the bundle's ISA when None.
        measuring: Entered while it measures, for example a lock that keeps other work away.
        config: How long to measure; with a warm and with a cold cache in any case.

    Raises:
        BundleError: A file is missing, corrupt, or not for this processor; or a kernel call
            belongs to no layer.
    """
    with opened(path) as folder, contextlib.ExitStack() as stack:
        build = load_bundle(folder)
        layers = profiled_layers(build.specs)
        try:
            executed = [_layer(record, layers) for record in build.kernels]
            bundle_runtime.check_cpu(bundle_runtime.read_manifest(folder))
            if device is None:
                device = LocalCpu(
                    DeviceConfig(name="this-cpu", isa=build.isa, threads=build.threads)
                )
                stack.enter_context(device)
            with measuring or contextlib.nullcontext():
                # First: not every device has one.
                roofline = device.roofline()
                timing = device.profile(build, replace(config, cache="warm"))
                cold = device.time([build], replace(config, cache="cold"))[0]
        except (BundleRuntimeError, CompilerError) as error:
            raise BundleError(f"{path}: {error}") from error
        return _profile(device.hardware, build.kernels, executed, timing, cold, roofline)


def profiled_layers(specs: Iterable[LayerSpec]) -> dict[str, LayerSpec]:
    """Site of a kernel call -> the layer that it executes.

    The convolution of attention's values has a call, and a site, of its own.
    """
    found = {}
    for spec in specs:
        found[spec.site] = spec
        if spec.operator is Operator.ATTENTION:
            found[spec.value_convolution.site] = spec.value_convolution
    return found


def kernel_macs(layer: LayerSpec) -> int:
    """Multiply-accumulates of the kernel call that executes one of `profiled_layers`."""
    if layer.operator is Operator.ATTENTION:
        return layer_cost(layer).macs - layer_cost(layer.value_convolution).macs
    return layer_cost(layer).macs


def _layer(record: KernelRecord, layers: Mapping[str, LayerSpec]) -> LayerSpec | None:
    """The layer that a kernel call executes; None for what converts or moves a tensor."""
    if record.kernel in CONVERSIONS:
        return None
    if record.site not in layers:
        raise BundleError(
            f"its kernel {record.kernel} executes {record.site!r}, which is none of its layers: "
            f"{', '.join(layers)}"
        )
    return layers[record.site]


def _profile(
    hardware: str,
    records: tuple[KernelRecord, ...],
    layers: list[LayerSpec | None],
    timing: InferenceTiming,
    cold: Measurement,
    roofline: Roofline,
) -> Profile:
    total = sum(call.measurement.median_ms for call in timing.calls)
    return Profile(
        hardware=hardware,
        kernels=tuple(
            _kernel(record, layer, call, total, roofline)
            for record, layer, call in zip(records, layers, timing.calls, strict=True)
        ),
        latency=timing.measurement,
        cold=cold,
        roofline=roofline,
        weight_bytes=timing.weight_bytes,
        workspace_bytes=timing.workspace_bytes,
        peak_rss_bytes=timing.peak_rss_bytes,
    )


def _kernel(
    record: KernelRecord,
    layer: LayerSpec | None,
    call: CallTiming,
    total_ms: float,
    roofline: Roofline,
) -> KernelProfile:
    macs = kernel_macs(layer) if layer is not None else 0
    integer = (
        record.input_dtype == "uint8" and layer is not None and layer.precision.weight is not None
    )
    return KernelProfile(
        site=record.site,
        kernel=record.kernel,
        symbol=record.symbol,
        input_shape=call.input_shape,
        output_shape=call.output_shape,
        window=1 if layer is None or layer.operator is Operator.ATTENTION else layer.kernel,
        stride=layer.stride if layer is not None else 1,
        input_dtype=record.input_dtype,
        output_dtype=record.output_dtype,
        arithmetic="int8" if integer else "float32",
        macs=macs,
        bytes=call.bytes,
        measurement=call.measurement,
        share=call.measurement.median_ms / total_ms,
        bound=roofline.bound(macs, call.bytes, integer),
    )
