"""Errors of the compilers that a user can act on."""

from __future__ import annotations

from spaces.errors import NetcarveError


class CompilerError(NetcarveError):
    """Base of every error raised while lowering, compiling, measuring or loading a subnet."""


class KernelError(CompilerError):
    """A kernel was asked for what no template provides, or got parameters that do not fit it."""


class TargetError(CompilerError):
    """An instruction set is unknown, or this processor does not execute it."""
