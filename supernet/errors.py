"""Errors of training data, checkpoints and supernets that a user can cause and mend."""

from __future__ import annotations

from spaces.errors import ConfigError, CorruptFileError, NetcarveError


class DataError(NetcarveError):
    """A data set is missing, malformed, too small, or holds a single class."""


class CheckpointError(CorruptFileError):
    """A checkpoint or a stored subnet is missing, damaged, or belongs to another run."""


class ForeignCheckpointError(CheckpointError):
    """A whole checkpoint of another run; going on from an older one would mix two runs."""


class SupernetConfigError(ConfigError):
    """A config, space or training option does not fit the supernet."""


class TrainingDivergedError(NetcarveError):
    """The loss of a training is not finite any more, and neither are its weights."""


class TrainingStoppedError(NetcarveError):
    """A training ended before its last step because it was asked to; it can go on."""
