"""Kinds of devices, found by name in `DEVICES`."""

from __future__ import annotations

from compilers.built import Build
from compilers.devices.base import DEVICES, Device, DeviceConfig, make_device, parse_device
from compilers.devices.cuda import CudaConfig, CudaDevice
from compilers.devices.emulated import EmulatedAarch64, EmulatedConfig
from compilers.devices.local import LocalCpu
from compilers.devices.peers import OnnxRuntimeDevice, TorchDevice
from compilers.devices.rpc import RpcConfig, RpcDevice

__all__ = [
    "DEVICES",
    "Build",
    "CudaConfig",
    "CudaDevice",
    "Device",
    "DeviceConfig",
    "EmulatedAarch64",
    "EmulatedConfig",
    "LocalCpu",
    "OnnxRuntimeDevice",
    "RpcConfig",
    "RpcDevice",
    "TorchDevice",
    "make_device",
    "parse_device",
]
