"""Accuracy of any subnet of a supernet, from those that were evaluated."""

from __future__ import annotations

from predictors.accuracy.base import AccuracyPredictor
from predictors.accuracy.cqap import CqapAccuracyPredictor
from predictors.accuracy.gaussian_process import GaussianProcessAccuracyPredictor
from predictors.accuracy.settings import NetworkSettings
from predictors.accuracy.transfer import TransferAccuracyPredictor

__all__ = [
    "AccuracyPredictor",
    "CqapAccuracyPredictor",
    "GaussianProcessAccuracyPredictor",
    "NetworkSettings",
    "TransferAccuracyPredictor",
]
