"""Tab completion of the names of jobs, devices, spaces, supernets and latency tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.names import Kind


def _names(kind: Kind, context: Any, incomplete: str) -> list[str]:
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


def supernets(ctx: Any, incomplete: str) -> list[str]:
    """Keys of trained supernets, newest first, then ids of jobs."""
    return _names("supernet", ctx, incomplete) + jobs(ctx, incomplete)


def tables(ctx: Any, incomplete: str) -> list[str]:
    """Names of latency tables."""
    return _names("latency table", ctx, incomplete)
