"""Predictions in, numbers with intervals out.  numpy only."""

from .calibration import bars, best_temperature, reliability
from .clusters import clustered, unit_of
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
from .multiple import claimed, holm, holm_by_name, least_visible

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
    "claimed",
    "class_prior_rows",
    "classification_rows",
    "clustered",
    "difference",
    "evaluate",
    "holm",
    "holm_by_name",
    "interval",
    "least_visible",
    "reliability",
    "retention",
    "unigram_rows",
    "unit_of",
]
