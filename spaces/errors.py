"""Errors that a user can cause and mend.

Every folder's own errors derive from `NetcarveError`: the command line prints its message in one
or two lines and exits with code 2. Anything else that reaches a user is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NetcarveError(Exception):
    """A user's mistake: the message says what was wrong, the value, and what is allowed."""


class ConfigError(NetcarveError):
    """A configuration file, option or config holds a value that is not allowed."""


class SpaceError(NetcarveError):
    """A search space is empty, malformed, or asks for more than a device executes."""


class UnknownNameError(NetcarveError):
    """A name is not registered. The message lists the known names and the nearest one."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        nearest = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        super().__init__(f"unknown {kind} {name!r}.{hint} Known: {', '.join(names) or 'none'}.")
        self.name = name
        self.known = tuple(names)


class CorruptFileError(NetcarveError):
    """A stored file cannot be read or does not match its recorded hash."""


class ArchiveError(NetcarveError):
    """A folder cannot be packed, or an archive not be unpacked."""


class UnsafeArchiveError(ArchiveError, CorruptFileError):
    """An archive is damaged, too large, or a member is not a plain file inside its folder."""
