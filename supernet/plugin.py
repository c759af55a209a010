"""Options of a plug-in: a name in a registry and the settings that the named class declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from spaces.errors import UnknownNameError
from spaces.registry import Registry
from spaces.settings import explain


class PluginConfig(BaseModel):
    """Base of the settings of every plug-in; immutable, unknown keys refused.

    Attributes:
        name: The plug-in's name in its registry.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str

    def __str__(self) -> str:
        return self.name


def read_options(registry: Registry[Any]) -> Callable[[Any], Any]:
    """A pydantic `BeforeValidator` for the options of a plug-in in `registry`.

    Every registered class has an attribute `settings_type`, its `PluginConfig`. The validator takes
    a name, or a mapping with the key `name` and the settings of the named class, and gives those
    settings validated. Unknown names and keys become errors that list the known ones.
    """

    def read(value: Any) -> Any:
        settings = {"name": value} if isinstance(value, str) else value
        if not isinstance(settings, Mapping):
            return value
        name = settings.get("name")
        if not isinstance(name, str):
            known = ", ".join(registry.names())
            raise ValueError(f"a {registry.kind} needs a name; known: {known}")
        try:
            model = registry.get(name).settings_type
        except UnknownNameError as error:
            raise ValueError(str(error)) from None
        try:
            return model.model_validate(dict(settings))
        except ValidationError as error:
            raise ValueError(f"{registry.kind} {name!r}: {explain(error, model)}") from None

    return read
