"""Errors of the compilers that a user can act on."""

from __future__ import annotations

from spaces.errors import NetcarveError


class CompilerError(NetcarveError):
    """Base of every error raised while lowering, compiling, measuring or loading a subnet."""


class KernelError(CompilerError):
    """A kernel was asked for what no template provides, or got parameters that do not fit it."""


class TargetError(CompilerError):
    """An instruction set is unknown, or this processor does not execute it."""


class UnsupportedOperatorError(CompilerError):
    """A subnet contains an operator, or a use of one, that no kernel template covers."""


class BuildError(CompilerError):
    """A build failed, crashed or ran out of time in its child process."""


class MismatchError(CompilerError):
    """A binary's outputs differ from its reference by more than the stated tolerance."""


class MeasurementError(CompilerError):
    """A binary could not be run or timed."""


class DeviceError(CompilerError):
    """A device is described wrongly, or this machine cannot be that device."""


class BundleError(CompilerError):
    """A bundle is incomplete, corrupt or not meant for this machine."""
