"""Registered devices: what a user wrote about them, what their probe found, their spaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compilers.devices import DeviceConfig, make_device, parse_device
from search.errors import SearchError
from search.host_lock import HostLock
from search.models import DeviceRow
from search.spaces_view import NamedSpace
from search.store import Store
from spaces import DeviceCapabilities, SearchSpace, SpaceError
from spaces.registration import parse_registration, register_space


@dataclass(frozen=True)
class RegisteredDevice:
    """A device of the store.

    Attributes:
        name: Its name.
        settings: What the user wrote.
        capabilities: What the probe found.
        spaces: Names of the spaces registered for it.
    """

    name: str
    settings: DeviceConfig
    capabilities: DeviceCapabilities
    spaces: tuple[str, ...] = ()

    @property
    def config(self) -> dict[str, Any]:
        """The settings, JSON-ready."""
        return self.settings.model_dump(mode="json")

    def to_json(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {
            "name": self.name,
            "config": self.config,
            "capabilities": self.capabilities.to_json(),
            "spaces": list(self.spaces),
        }


def add_device(
    store: Store, settings: Mapping[str, Any] | DeviceConfig, *, replace: bool = False
) -> RegisteredDevice:
    """Probe a device and store it. Adding one again that has not changed only probes it again.

    Raises:
        UnknownNameError: No such kind of device.
        DeviceError: The settings are not allowed, this machine cannot be that device, or it cannot
            be reached.
        RecordConflictError: Another device has that name, and `replace` is False.
    """
    config = settings if isinstance(settings, DeviceConfig) else parse_device(settings)
    found = RegisteredDevice(config.name, config, _probe(config))
    record_devices(store, [found], replace=replace)
    return show_device(store, config.name)


def probe_device(store: Store, name: str) -> RegisteredDevice:
    """Probe a registered device again and store what was found.

    Raises:
        UnknownNameError: No such device, or its kind is no longer there.
        DeviceError: This machine cannot be that device.
    """
    return add_device(store, show_device(store, name).settings, replace=True)


def show_device(store: Store, name: str) -> RegisteredDevice:
    """One device.

    Raises:
        UnknownNameError: No such device; the message lists the known ones.
    """
    return _registered(store, store.devices.device(name))


def list_devices(store: Store) -> list[RegisteredDevice]:
    """All devices by name."""
    return [_registered(store, row) for row in store.devices.devices()]


def find_devices(store: Store, devices: Sequence[DeviceConfig | str]) -> list[RegisteredDevice]:
    """The devices of a job, in its order: a name is looked up, a description is probed.

    Nothing is stored; `record_devices` does that for a job that is accepted.

    Raises:
        UnknownNameError: No device has that name.
        DeviceError: This machine cannot be that device.
    """
    return [
        show_device(store, device)
        if isinstance(device, str)
        else RegisteredDevice(device.name, device, _probe(device))
        for device in devices
    ]


def record_devices(
    store: Store, devices: Sequence[RegisteredDevice], *, replace: bool = False
) -> None:
    """Store devices, or what their new probes found: all of them or none.

    Raises:
        RecordConflictError: Another device has one of the names, and `replace` is False.
    """
    store.devices.record_devices(
        {device.name: (device.config, device.capabilities.to_json()) for device in devices},
        replace=replace,
    )


def register_space_file(store: Store, file: str | Path, device: str) -> NamedSpace:
    """Register the space that a YAML file describes for a device (see `spaces.registration`).

    Raises:
        SearchError: The file cannot be read.
        UnknownNameError: Unknown device, base space, dimension or scheme.
        ConfigError: Not YAML, or an unknown key.
        SpaceError: It asks for more than the device executes, or leaves nothing to choose.
    """
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SearchError(f"cannot read space registration {str(file)!r}: {error}") from None
    return register_space_text(store, text, device)


def register_space_text(store: Store, text: str, device: str) -> NamedSpace:
    """`register_space_file` of the text itself.

    A device has one space for each base space, so that a job that searches the base knows which
    one to use; registering it again under the same name replaces it.

    Raises:
        As `register_space_file`.
    """
    registration = parse_registration(text)
    known = show_device(store, device)
    space = register_space(registration, device, known.capabilities)
    for row in store.devices.spaces(device):
        if row.base_space == registration.base and row.name != space.name:
            raise SpaceError(
                f"device {device!r} already has the space {row.name!r} for {row.base_space}, and "
                f"can have one only; register it under 'name: {row.name}' to replace it"
            )
    store.devices.record_space(device, space.name, registration.base, space.to_json(), text)
    return NamedSpace(space.name, space, device, registration.base)


def device_space(store: Store, device: RegisteredDevice, base: SearchSpace) -> SearchSpace:
    """The part of `base` that a search may use on a device: what the device executes and what is
    registered for it.

    Args:
        store: The store.
        device: A device, registered or not.
        base: The space of a job; its name is the one that registrations give as their base.

    Raises:
        SpaceError: Nothing is left of a dimension, or the registration is for another version of
            the base space.
    """
    allowed = base.restrict(device.capabilities)
    for row in store.devices.spaces(device.name):
        if row.base_space != base.name:
            continue
        registered = SearchSpace.from_json(row.space)
        if registered.names != base.names:
            raise SpaceError(
                f"space {row.name!r} of device {device.name!r} was registered for another version "
                f"of {base.name}; register it again"
            )
        choices = {}
        for own, wanted in zip(allowed.dimensions, registered.dimensions, strict=True):
            choices[own.name] = tuple(c for c in own.choices if c in wanted.choices)
            if not choices[own.name]:
                raise SpaceError(
                    f"nothing is left of {own.name}: the job allows {own.choices}, the space "
                    f"{row.name!r} of device {device.name!r} allows {wanted.choices}"
                )
        allowed = allowed.restrict(choices=choices)
    return allowed


def _registered(store: Store, row: DeviceRow) -> RegisteredDevice:
    return RegisteredDevice(
        name=row.name,
        settings=parse_device(row.config),
        capabilities=DeviceCapabilities.from_json(row.capabilities),
        spaces=tuple(space.name for space in store.devices.spaces(row.name)),
    )


def _probe(config: DeviceConfig) -> DeviceCapabilities:
    # A probe compiles and runs kernels: not while a job measures on this host.
    with make_device(config) as device, HostLock().shared(f"probe of device {config.name}"):
        return device.probe()
