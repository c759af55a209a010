"""Registries: name -> object, filled by the package itself and by entry points of plug-ins."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from spaces.errors import UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """A mapping from names to objects of one kind.

    An installed plug-in adds a name by an entry point in the registry's group; it is loaded only
    when that name is asked for. The package's own names win over a plug-in's.

    Args:
        kind: What is registered, for error messages: "device".
        group: Entry-point group, for example `netcarve.devices`.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._own: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that registers its object under `name`."""

        def add(item: T) -> T:
            if name in self._own:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._own[name] = item
            return item

        return add

    def names(self) -> list[str]:
        """All known names, sorted."""
        return sorted({*self._own, *(point.name for point in entry_points(group=self.group))})

    def get(self, name: str) -> T:
        """The object called `name`.

        Raises:
            UnknownNameError: Nothing has this name; the message lists the known ones.
        """
        if name in self._own:
            return self._own[name]
        for point in entry_points(group=self.group, name=name):
            item: T = point.load()
            return item
        raise UnknownNameError(self.kind, name, self.names())
