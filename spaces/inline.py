"""A search space that is described where it is used, by a family and its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from spaces.errors import ConfigError
from spaces.families import make_family
from spaces.settings import explain
from spaces.space import SearchSpace


class InlineSpace(BaseModel):
    """A space without a name of its own.

    Attributes:
        family: Name of a family.
        settings: Its settings, which the family validates.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: str
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"{self.family} (inline)"

    def space(self) -> SearchSpace:
        """The space.

        Raises:
            UnknownNameError: No such family.
            ConfigError: The family refuses the settings.
        """
        return SearchSpace(self.name, make_family(self.family, self.settings))


def parse_inline_space(data: Mapping[str, Any]) -> InlineSpace:
    """The space that a job describes, its settings validated.

    Raises:
        UnknownNameError: No such family.
        ConfigError: An unknown key, or settings that the family refuses.
    """
    try:
        found = InlineSpace.model_validate(data)
    except ValidationError as error:
        raise ConfigError(explain(error, InlineSpace)) from None
    found.space()
    return found
