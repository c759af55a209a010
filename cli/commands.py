"""How the command line ends: which error gives which message and exit code.

0: done. 1: `doctor` found a problem, or a bug (with a traceback). 2: something that the user can
mend. 130: interrupted.
"""

from __future__ import annotations

import errno
import re
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

USER_ERROR = 2
INTERRUPTED = 130

# Where the classes of users' mistakes live. Looked up among the modules already imported: an
# error can only come from a module that is, and importing them here would slow `--help` down.
_USER_ERRORS = (("spaces.errors", "NetcarveError"), ("compilers.runtime", "BundleRuntimeError"))
# What a disk or a path given by the user can cause; a missing file (ENOENT) is rather a bug.
_DISK = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}
_PATH = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST}


# Run again, these go on where they were stopped.
_CONTINUED = {
    ("search", "run"), ("search", "resume"), ("search", "export"), ("device", "pool", "build"),
    ("supernet", "train"),
}  # fmt: skip
# Passwords of URLs such as postgresql://USER:PASSWORD@HOST/NAME?password=PASSWORD.
_PASSWORD = re.compile(r"(?<=://)([^:/@]*):.+@|(?<=[?&]password=)[^&]+")


def interrupted_message(arguments: Sequence[str]) -> str:
    """What to tell the user of an interrupted command; passwords in its arguments are hidden."""
    if not {tuple(arguments[:2]), tuple(arguments[:3])} & _CONTINUED:
        return "Interrupted."
    shown = [_PASSWORD.sub(_hidden, argument) for argument in arguments]
    command = shlex.join(["netcarve", *shown])
    return f"Interrupted. Everything finished is kept; to continue: {command}"


def _hidden(match: re.Match[str]) -> str:
    return "***" if match[1] is None else f"{match[1]}:***@"


def user_message(error: BaseException) -> str | None:
    """What to tell the user about a mistake or circumstance that they can mend; None for a bug."""
    known = (getattr(sys.modules.get(module), name, None) for module, name in _USER_ERRORS)
    if any(kind is not None and isinstance(error, kind) for kind in known):
        return str(error)
    if isinstance(error, OSError) and error.errno in _DISK | _PATH:
        return f"{error.strerror}: {error.filename}" if error.filename else str(error)
    return None


class Commands(TyperGroup):
    """The root group: turns users' mistakes and interrupts into short messages."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """Remember the arguments, to say how an interrupted command is continued."""
        given = list(args)
        context = super().make_context(info_name, args, parent, **extra)
        context.meta["cli.arguments"] = given
        return context

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("\n" + interrupted_message(ctx.meta["cli.arguments"]), err=True)
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            message = user_message(error)
            if message is None:
                raise
            typer.echo(f"error: {message}", err=True)
            raise typer.Exit(USER_ERROR) from None
