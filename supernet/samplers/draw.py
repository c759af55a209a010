"""Draw: a config with the part that it plays in its step."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from spaces.config import Config


class Role(StrEnum):
    """What a config is in its step: the teacher, one of those in between, the smallest."""

    MAX = "max"
    RANDOM = "random"
    MIN = "min"


@dataclass(frozen=True, slots=True)
class Draw:
    """A config and its role."""

    config: Config
    role: Role
