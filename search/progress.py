"""How long work reports how far it is."""

from __future__ import annotations

from collections.abc import Callable

# (phase, done, total): called often, from the thread that works; must be quick and not raise.
Progress = Callable[[str, int, int], None]


def silent(_phase: str, _done: int, _total: int) -> None:
    """Report nothing."""
