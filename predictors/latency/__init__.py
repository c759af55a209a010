"""Latency of any subnet on an unseen device, from few measurements."""

from __future__ import annotations

from predictors.latency.base import LATENCY_PREDICTORS, LatencyPredictor
from predictors.latency.configs import Amount, Column, Configs, ConfigSchema
from predictors.latency.encoding import KernelLatencies, SpaceEncoding
from predictors.latency.ridge import RidgeLatencyPredictor
from predictors.latency.tables import LatencyTables

__all__ = [
    "LATENCY_PREDICTORS",
    "Amount",
    "Column",
    "ConfigSchema",
    "Configs",
    "KernelLatencies",
    "LatencyPredictor",
    "LatencyTables",
    "RidgeLatencyPredictor",
    "SpaceEncoding",
]
