"""Predictions in, numbers with intervals out.  numpy only."""

from .calibration import bars, best_temperature, reliability
from .classes import class_table, confusions
from .clusters import clustered, unit_of
from .documents import document_metric, document_rows
from .groups import Share, alarms, gap_facts, gap_rows, group_values
from .guess import uniform_rows
from .inherited import REPEATED, inheritance_in_words, words_of_errors
from .intervals import Difference, Interval, bootstrap_weights, difference, interval, retention
from .mending import TEMPERATURES, mended
from .metrics import (
    CLASSIFICATION_METRICS,
    ECE_BINS,
    FINE_BINS,
    LM_METRICS,
    MASKED_METRICS,
    TASK_METRICS,
    Metric,
    Rows,
    class_prior_rows,
    classification_rows,
    evaluate,
    in_bits,
    unigram_rows,
    with_adaptive_bins,
    with_merged_bins,
)
from .multiple import claimed, family, holm, holm_by_name, least_visible, spread
from .quantiles import median_interval, middle, quantile_interval
from .shift import FLIPS, MOVED, flip_rows, moved_rows, same_answers, shift_facts, shift_rows
from .text import ANSWER_METRICS

__all__ = [
    "ANSWER_METRICS",
    "CLASSIFICATION_METRICS",
    "ECE_BINS",
    "FINE_BINS",
    "FLIPS",
    "LM_METRICS",
    "MASKED_METRICS",
    "MOVED",
    "REPEATED",
    "TASK_METRICS",
    "TEMPERATURES",
    "Difference",
    "Interval",
    "Metric",
    "Rows",
    "Share",
    "alarms",
    "bars",
    "best_temperature",
    "bootstrap_weights",
    "claimed",
    "class_prior_rows",
    "class_table",
    "classification_rows",
    "clustered",
    "confusions",
    "difference",
    "document_metric",
    "document_rows",
    "evaluate",
    "family",
    "flip_rows",
    "gap_facts",
    "gap_rows",
    "group_values",
    "holm",
    "holm_by_name",
    "in_bits",
    "inheritance_in_words",
    "interval",
    "least_visible",
    "median_interval",
    "mended",
    "middle",
    "moved_rows",
    "quantile_interval",
    "reliability",
    "retention",
    "same_answers",
    "shift_facts",
    "shift_rows",
    "spread",
    "uniform_rows",
    "unigram_rows",
    "unit_of",
    "with_adaptive_bins",
    "with_merged_bins",
    "words_of_errors",
]
