"""Kinds of devices, found by name in `DEVICES`."""

from __future__ import annotations

from compilers.built import Build
from compilers.devices.base import DEVICES, Device, DeviceConfig, make_device, parse_device
from compilers.devices.local import LocalCpu
from compilers.devices.rpc import RpcConfig, RpcDevice

__all__ = [
    "DEVICES",
    "Build",
    "Device",
    "DeviceConfig",
    "LocalCpu",
    "RpcConfig",
    "RpcDevice",
    "make_device",
    "parse_device",
]
