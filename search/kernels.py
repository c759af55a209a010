"""The kernel library of a space on a device: filled, listed, exported and imported."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compilers.devices import Device, make_device
from compilers.devices.base import device_identity
from compilers.errors import DeviceError, KernelRecordError
from compilers.kernel_fill import FillReport, LibraryFill, device_isa
from compilers.kernel_library import KernelLibrary
from compilers.kernel_records import KernelChoice, KernelTiming
from compilers.kernel_space import space_kernels
from search.devices import RegisteredDevice, device_space, show_device
from search.errors import SearchError
from search.host_lock import HostLock, announce
from search.progress import Progress
from search.spaces_view import show_space
from search.store import Store
from spaces import SearchSpace
from spaces.cache import default_cache
from spaces.files import atomic_write_bytes

FOLDER = "kernels"


@dataclass(frozen=True)
class KernelsBuilt:
    """What `build_kernels` has done: for which space and device, and the report of the fill."""

    space: str
    device: str
    library: Path
    report: FillReport

    def to_json(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {
            "space": self.space,
            "device": self.device,
            "library": str(self.library),
            **asdict(self.report),
        }


def build_kernels(
    store: Store,
    space: str,
    device: str,
    progress: Progress,
    limit_minutes: float | None = None,
    processes: int = 2,
) -> KernelsBuilt:
    """Choose tiles for every kernel that the space can contain on a device, and measure them.

    What is done is kept; called again, it goes on.

    Args:
        store: The store with the registered device.
        space: Name of a space that ships or is registered for the device.
        device: Name of the device.
        progress: Told how far it is.
        limit_minutes: Begin nothing more after so long.
        processes: Child processes that compile at the same time.

    Raises:
        UnknownNameError: No such space or device.
        DeviceError: This host is not the device that was probed, or it does not time kernels.
        KernelLibraryError: The library cannot be read or written.
        UnsupportedOperatorError: The space holds a layer that no kernel executes.
    """
    start = time.monotonic()
    known = show_device(store, device)
    chosen = kernel_space(store, known, space)
    progress("kernels of the space", 0, 0)
    kernels = space_kernels(chosen)
    lock, waiting = HostLock(), announce(progress)
    with probed_device(known) as opened:
        library = KernelLibrary(library_folder(opened))
        fill = LibraryFill(
            library,
            opened,
            known.capabilities,
            compiling=lambda: lock.shared(f"kernels of {space} for {device}", on_wait=waiting),
            measuring=lambda: lock.exclusive(f"kernel latencies of {device}", on_wait=waiting),
            processes=processes,
        )
        report = fill.run(
            kernels,
            lambda done, total: progress("kernels", done, total),
            None if limit_minutes is None else start + 60.0 * limit_minutes,
        )
    return KernelsBuilt(space, device, library.folder, report)


def kernel_space(store: Store, device: RegisteredDevice, name: str) -> SearchSpace:
    """What a search may use of a space on a device.

    Raises:
        UnknownNameError: No such space.
        SpaceError: Nothing is left of a dimension.
    """
    if name in device.spaces:
        return show_space(store, name, device.name).space.restrict(device.capabilities)
    return device_space(store, device, show_space(store, name).space)


def probed_device(registered: RegisteredDevice) -> Device:
    """The device, for the instruction set that its probe found.

    Raises:
        DeviceError: This host is another one.
    """
    found = registered.capabilities
    device = make_device(registered.settings.model_copy(update={"isa": found.isa}))
    if device.hardware != found.hardware:
        device.close()
        raise DeviceError(
            f"device {registered.name!r} was probed as {found.hardware}; this host is "
            f"{device.hardware}. Probe it again: netcarve device probe {registered.name}"
        )
    return device


def library_folder(device: Device) -> Path:
    """Where a device's kernel library is.

    Raises:
        DeviceError: Devices of this kind keep no compiled kernels.
    """
    if device.cache is None:
        raise DeviceError(f"devices of kind {device.config.kind!r} keep no compiled kernels")
    return device.cache / FOLDER


def default_library() -> KernelLibrary:
    """The library of this user's local devices."""
    return KernelLibrary(default_cache() / FOLDER)


def library_timings(library: KernelLibrary, device: RegisteredDevice) -> list[KernelTiming]:
    """What the library knows about kernels on a device, slowest first."""
    identity = device_identity(device.settings, device.capabilities)
    found = library.timings(identity, device_isa(device.capabilities))
    return sorted(found.values(), key=lambda timing: -timing.median_us)


def export_choices(library: KernelLibrary, file: Path) -> int:
    """Write every choice, one JSON object a line; how many.

    Raises:
        SearchError: The file cannot be written.
    """
    choices = list(library.choices().values())
    try:
        atomic_write_bytes(file, b"".join(choice.line() for choice in choices))
    except OSError as error:
        raise SearchError(f"cannot write {str(file)!r}: {error.strerror}") from error
    return len(choices)


@dataclass(frozen=True)
class Imported:
    """Choices that an import added, and those left out because the library has its own."""

    added: int
    kept: int

    def to_json(self) -> Mapping[str, int]:
        """JSON-ready fields."""
        return asdict(self)


def import_choices(library: KernelLibrary, file: Path) -> Imported:
    """Add the choices in a file; those that the library has already stay.

    Raises:
        SearchError: The file cannot be read, or a line is not a choice; nothing is imported.
        KernelLibraryError: The library cannot be written.
    """
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as error:
        raise SearchError(f"cannot read {str(file)!r}: {error.strerror}") from error
    found: dict[Any, KernelChoice] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            choice = KernelChoice.parse(line)
        except KernelRecordError as error:
            raise SearchError(
                f"{str(file)!r}, line {number}: {error}. Nothing was imported"
            ) from None
        found[choice.key] = choice
    known = library.choices()
    added = [choice for key, choice in found.items() if key not in known]
    library.store_choices(added)
    return Imported(len(added), len(found) - len(added))
