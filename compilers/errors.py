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
    """A build failed."""


class MismatchError(CompilerError):
    """A binary's outputs differ from its reference by more than the stated tolerance."""


class MeasurementError(CompilerError):
    """A binary could not be run or timed."""


class ChildTimeoutError(CompilerError):
    """A child process took longer than it may and was stopped; says nothing about its work."""


class ChildCrashError(CompilerError):
    """A child process ended without an answer.

    Attributes:
        signal: Number of the signal that ended it; None when it left by itself.
    """

    def __init__(self, message: str, signal: int | None = None) -> None:
        super().__init__(message)
        self.signal = signal


class DeviceError(CompilerError):
    """A device is described wrongly, could not be probed, or this machine cannot be that device."""


class DeviceConnectionError(DeviceError):
    """A device's server cannot be reached, does not answer, or went away in mid-request."""


class BundleError(CompilerError):
    """A bundle is incomplete, corrupt or not meant for this machine."""
