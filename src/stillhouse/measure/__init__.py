"""Predictions in, numbers with intervals out.  numpy only."""

from .calibration import bars, best_temperature, reliability
from .intervals import Difference, Interval, bootstrap_weights, difference, interval, retention
from .metrics import (
    CLASSIFICATION_METRICS,
    LM_METRICS,
    Metric,
    Rows,
    class_prior_rows,
    classification_rows,
    evaluate,
    unigram_rows,
)

__all__ = [
    "CLASSIFICATION_METRICS",
    "LM_METRICS",
    "Difference",
    "Interval",
    "Metric",
    "Rows",
    "bars",
    "best_temperature",
    "bootstrap_weights",
    "class_prior_rows",
    "classification_rows",
    "difference",
    "evaluate",
    "interval",
    "reliability",
    "retention",
    "unigram_rows",
]
