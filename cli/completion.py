"""Tab completion of the names of jobs, devices and spaces."""

from __future__ import annotations

from typing import Any, Literal


def _names(kind: Literal["job", "device", "space"], context: Any, incomplete: str) -> list[str]:
    from search.names import known_names

    given = {**(context.params if context is not None else {})}
    names = known_names(kind, home=given.get("home"), database=given.get("db"))
    return [name for name in names if name.startswith(incomplete)]


def jobs(ctx: Any, incomplete: str) -> list[str]:
    """Ids of jobs, newest first."""
    return _names("job", ctx, incomplete)


def devices(ctx: Any, incomplete: str) -> list[str]:
    """Names of registered devices."""
    return _names("device", ctx, incomplete)


def spaces(ctx: Any, incomplete: str) -> list[str]:
    """Names of the spaces that ship with netcarve and of registered ones."""
    return _names("space", ctx, incomplete)
