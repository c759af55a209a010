"""The devices that this machine can be: instruction sets, threads, batches and runtimes."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from compilers.devices import DEVICES, DeviceConfig, make_device
from compilers.errors import DeviceError
from compilers.targets import ISAS
from search.devices import list_devices
from search.errors import SearchError
from search.store import Store
from spaces import UnknownNameError

THREADS = (1, 2)
BATCHES = (1, 8)
RUNTIMES = ("onnxruntime", "torch")

_VNNI = "_vnni"


@dataclass(frozen=True)
class PoolDevice:
    """A device of a pool.

    Attributes:
        config: What it is.
        family: Its family, see `device_family`.
        missing: Why this machine cannot be it; empty when it can.
    """

    config: DeviceConfig
    family: str
    missing: str = ""

    @property
    def name(self) -> str:
        """What latency tables call it."""
        return self.config.name

    def to_json(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {
            "name": self.name,
            "family": self.family,
            "config": self.config.model_dump(mode="json"),
            "available": not self.missing,
            "missing": self.missing or None,
        }


def device_family(kind: str, isa: str) -> str:
    """Devices of one family run the same code; threads and batch do not count.

    That is a runtime, or for TVM the width of the vectors: with dot products of integers or
    without them, AVX-512 executes the same float32 kernels.

    Args:
        kind: Kind of device.
        isa: Instruction set that is compiled for, where the kind has one.
    """
    return f"tvm-{isa.removesuffix(_VNNI)}" if isa in ISAS else kind


def default_pool() -> list[PoolDevice]:
    """Every instruction set of this architecture with TVM, and the other runtimes: each with one
    thread and two, the runtimes with batches of 1 and 8."""
    isas = [name for name, isa in ISAS.items() if isa.architecture == platform.machine()]
    compiled = [
        DeviceConfig(name=f"tvm-{isa}-t{threads}", isa=isa, threads=threads)
        for isa, threads in product(isas, THREADS)
    ]
    runtimes = [
        DeviceConfig(name=f"{kind}-t{threads}-b{batch}", kind=kind, threads=threads, batch=batch)
        for kind, threads, batch in product(RUNTIMES, THREADS, BATCHES)
    ]
    return [
        PoolDevice(config, device_family(config.kind, config.isa), _missing(config))
        for config in (*compiled, *runtimes)
    ]


def find_pool(store: Store, names: Sequence[str] = ()) -> list[PoolDevice]:
    """The devices of those names: of the default pool, or registered ones.

    Args:
        store: The store.
        names: The whole default pool, as far as this machine can be it, when empty.

    Raises:
        UnknownNameError: No such device.
        DeviceError: This machine cannot be that device.
        SearchError: It has no latencies.
    """
    default = {device.name: device for device in default_pool()}
    if not names:
        return [device for device in default.values() if not device.missing]
    registered = {
        device.name: PoolDevice(
            device.settings, device_family(device.settings.kind, device.capabilities.isa)
        )
        for device in list_devices(store)
    }
    known = {**registered, **default}
    found = []
    for name in dict.fromkeys(names):
        if name not in known:
            raise UnknownNameError("device", name, known)
        device = known[name]
        if device.missing:
            raise DeviceError(device.missing)
        if not DEVICES.get(device.config.kind).has_latencies:
            raise SearchError(
                f"device {name} is of kind {device.config.kind!r}, which has no latencies"
            )
        found.append(device)
    return found


def _missing(config: DeviceConfig) -> str:
    try:
        make_device(config).close()
    except DeviceError as error:
        return str(error)
    return ""
