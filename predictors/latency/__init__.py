"""Latency of any subnet on an unseen device, from few measurements."""

from __future__ import annotations

from predictors.latency.adaptive import AdaptiveLatencyPredictor
from predictors.latency.base import LATENCY_PREDICTORS, LatencyPredictor
from predictors.latency.baselines import (
    AdditiveLatencyPredictor,
    LookupLatencyPredictor,
    MacsLatencyPredictor,
    NearestLatencyPredictor,
)
from predictors.latency.configs import Amount, Column, Configs, ConfigSchema
from predictors.latency.encoding import KernelLatencies, SpaceEncoding
from predictors.latency.evaluate import DeviceScores, evaluate
from predictors.latency.help import HelpLatencyPredictor
from predictors.latency.help_settings import HelpSettings
from predictors.latency.ridge import RidgeLatencyPredictor
from predictors.latency.scratch import ScratchLatencyPredictor
from predictors.latency.setting import AdaptiveSetting
from predictors.latency.tables import LatencyTables

__all__ = [
    "LATENCY_PREDICTORS",
    "AdaptiveLatencyPredictor",
    "AdaptiveSetting",
    "AdditiveLatencyPredictor",
    "Amount",
    "Column",
    "ConfigSchema",
    "Configs",
    "DeviceScores",
    "HelpLatencyPredictor",
    "HelpSettings",
    "KernelLatencies",
    "LatencyPredictor",
    "LatencyTables",
    "LookupLatencyPredictor",
    "MacsLatencyPredictor",
    "NearestLatencyPredictor",
    "RidgeLatencyPredictor",
    "ScratchLatencyPredictor",
    "SpaceEncoding",
    "evaluate",
]
