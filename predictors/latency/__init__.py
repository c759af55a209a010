"""Predictors of latency on one device."""

from __future__ import annotations

from predictors.latency.ridge import RidgeLatencyPredictor

__all__ = ["RidgeLatencyPredictor"]
