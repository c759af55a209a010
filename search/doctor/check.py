"""Check: one thing that was looked at, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a check ended. Only a problem keeps a search from running."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What.
        status: How it is.
        found: What was found.
        advice: What to do about it; empty when all is well.
    """

    name: str
    status: Status
    found: str
    advice: str = ""

    def to_json(self) -> dict[str, str]:
        """All fields."""
        return {
            "name": self.name,
            "status": self.status.value,
            "found": self.found,
            "advice": self.advice,
        }


def reinstall() -> str:
    """Advice for a broken installation."""
    return "Install again: pip install -c constraints.txt -e ."
