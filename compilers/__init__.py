"""Floor 3: extracted subnets become binaries that are checked, measured and shipped.

Names load when they are first used, so that `compilers.runtime` needs only numpy and TVM.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compilers.built import Build
    from compilers.bundle import (
        BundleInfo,
        Verification,
        load_bundle,
        verify_bundle,
        write_bundle,
    )
    from compilers.devices import (
        DEVICES,
        Device,
        DeviceConfig,
        LocalCpu,
        RpcConfig,
        RpcDevice,
        make_device,
        parse_device,
    )
    from compilers.measurement import Measurement, MeasurementConfig, measure_interleaved

_HOME = {
    "DEVICES": "compilers.devices",
    "Build": "compilers.built",
    "BundleInfo": "compilers.bundle",
    "Device": "compilers.devices",
    "DeviceConfig": "compilers.devices",
    "LocalCpu": "compilers.devices",
    "Measurement": "compilers.measurement",
    "MeasurementConfig": "compilers.measurement",
    "RpcConfig": "compilers.devices",
    "RpcDevice": "compilers.devices",
    "Verification": "compilers.bundle",
    "load_bundle": "compilers.bundle",
    "make_device": "compilers.devices",
    "measure_interleaved": "compilers.measurement",
    "parse_device": "compilers.devices",
    "verify_bundle": "compilers.bundle",
    "write_bundle": "compilers.bundle",
}

__all__ = [
    "DEVICES",
    "Build",
    "BundleInfo",
    "Device",
    "DeviceConfig",
    "LocalCpu",
    "Measurement",
    "MeasurementConfig",
    "RpcConfig",
    "RpcDevice",
    "Verification",
    "load_bundle",
    "make_device",
    "measure_interleaved",
    "parse_device",
    "verify_bundle",
    "write_bundle",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
