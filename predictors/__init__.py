"""Floor 3: metrics of subnets that were never evaluated, learnt from those that were."""

from __future__ import annotations

from predictors.accuracy import (
    AccuracyPredictor,
    CqapAccuracyPredictor,
    GaussianProcessAccuracyPredictor,
    TransferAccuracyPredictor,
)
from predictors.base import ACCURACY_PREDICTORS, Predictor
from predictors.errors import (
    InvalidTargetError,
    NotFittedError,
    PredictorFileError,
    TableError,
    TooFewSamplesError,
)
from predictors.features import cost_features
from predictors.latency import (
    LATENCY_PREDICTORS,
    Configs,
    ConfigSchema,
    KernelLatencies,
    LatencyPredictor,
    LatencyTables,
    RidgeLatencyPredictor,
    SpaceEncoding,
    evaluate,
)
from predictors.sample_design import d_optimal
from predictors.scores import kendall, scores, spearman

__all__ = [
    "ACCURACY_PREDICTORS",
    "LATENCY_PREDICTORS",
    "AccuracyPredictor",
    "ConfigSchema",
    "Configs",
    "CqapAccuracyPredictor",
    "GaussianProcessAccuracyPredictor",
    "InvalidTargetError",
    "KernelLatencies",
    "LatencyPredictor",
    "LatencyTables",
    "NotFittedError",
    "Predictor",
    "PredictorFileError",
    "RidgeLatencyPredictor",
    "SpaceEncoding",
    "TableError",
    "TooFewSamplesError",
    "TransferAccuracyPredictor",
    "cost_features",
    "d_optimal",
    "evaluate",
    "kendall",
    "scores",
    "spearman",
]
