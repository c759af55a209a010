"""Errors of predictors that a user can cause and mend."""

from __future__ import annotations

from spaces.errors import NetcarveError


class TooFewSamplesError(NetcarveError):
    """A predictor was given fewer samples than it can be fitted on."""


class InvalidTargetError(NetcarveError):
    """A measured value is NaN, infinite, out of range, or all values are the same."""


class NotFittedError(NetcarveError):
    """A predictor was asked to predict before it was fitted."""


class TableError(NetcarveError):
    """A latency table, or configs handed to a predictor, are malformed or of another space."""


class PredictorFileError(NetcarveError):
    """A stored predictor cannot be read, is damaged, or is another one."""
