"""The search spaces that a user can name: those that ship and those registered for a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from search.errors import SearchError
from search.store import Store
from spaces import SPACES, SearchSpace, UnknownNameError, get_space


@dataclass(frozen=True)
class NamedSpace:
    """A space under a name.

    Attributes:
        name: The name.
        space: The space.
        device: The device that it is registered for, None for one that ships.
        base: The name of the space that it restricts, None for one that ships.
    """

    name: str
    space: SearchSpace
    device: str | None = None
    base: str | None = None

    def to_json(self, choices: bool = False) -> dict[str, Any]:
        """JSON-ready fields, with the family's settings and the choices of every dimension if
        wanted."""
        data: dict[str, Any] = {
            "name": self.name,
            "device": self.device,
            "base": self.base,
            "family": self.space.family.name,
            "key": self.space.key,
            "dimensions": len(self.space.dimensions),
            "log10_size": self.space.log10_size,
        }
        if choices:
            data["settings"] = self.space.family.to_json()
            data["choices"] = {d.name: list(d.choices) for d in self.space.dimensions}
        return data


def list_spaces(store: Store) -> list[NamedSpace]:
    """Every space: those that ship by name, then the registered ones by device and name."""
    return [NamedSpace(name, get_space(name)) for name in SPACES.names()] + _registered(store)


def show_space(store: Store, name: str, device: str | None = None) -> NamedSpace:
    """The space called `name`: of a device if one is given, else one that ships, else the only
    registered one of that name.

    Raises:
        UnknownNameError: No such space or device.
        SearchError: Several devices have a space of that name.
    """
    if device is not None:
        row = store.devices.space(device, name)
        return NamedSpace(name, SearchSpace.from_json(row.space), row.device, row.base_space)
    if name in SPACES.names():
        return NamedSpace(name, get_space(name))
    registered = _registered(store)
    found = [one for one in registered if one.name == name]
    if len(found) > 1:
        devices = ", ".join(str(one.device) for one in found)
        raise SearchError(f"space {name!r} is registered for several devices; say which: {devices}")
    if not found:
        raise UnknownNameError("space", name, {*SPACES.names(), *(o.name for o in registered)})
    return found[0]


def _registered(store: Store) -> list[NamedSpace]:
    return [
        NamedSpace(row.name, SearchSpace.from_json(row.space), row.device, row.base_space)
        for row in store.devices.spaces()
    ]
