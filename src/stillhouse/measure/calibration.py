"""Is a model's confidence to be believed?  The reliability chart, and the temperature that repairs it.

Shapes: N rows, C classes.
"""

import math
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike

from ..errors import DataError
from .metrics import ECE_BINS, check_finite, checked_labels, checked_predictions, confidence_bin

COLDEST, HOTTEST = 0.01, 100.0
"""Where `best_temperature` looks."""


class Bin(TypedDict):
    """One bar: confidences above `low` and at most `high`, and their means (None if there are none)."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


def reliability(probabilities: ArrayLike, labels: ArrayLike, bins: int = ECE_BINS) -> list[Bin]:
    """Mean confidence against accuracy in `bins` equal-width bins of the highest probability.

    Args: probabilities [N, C]; labels [N].  Raises: DataError with the first bad row.
    """
    if bins < 1:
        raise ValueError(f"reliability: bins must be at least 1, got {bins}")
    table_NC, truth_N = checked_predictions(probabilities, labels)
    confidence_N = table_NC.max(axis=1)
    bin_N = confidence_bin(confidence_N, bins)
    counts = np.bincount(bin_N, minlength=bins)
    confidences = np.bincount(bin_N, weights=confidence_N, minlength=bins)
    hits = np.bincount(bin_N, weights=table_NC.argmax(axis=1) == truth_N, minlength=bins)
    return bars(counts, confidences, hits)


def bars(counts: ArrayLike, confidences: ArrayLike, hits: ArrayLike) -> list[Bin]:
    """The chart from what falls into each of K equal-width bins: how many, their summed confidence, how many right."""
    count_K, sure_K, right_K = (
        np.asarray(values, dtype=np.float64) for values in (counts, confidences, hits)
    )
    bins = len(count_K)
    return [
        {
            "low": k / bins,
            "high": (k + 1) / bins,
            "count": int(count_K[k]),
            "confidence": float(sure_K[k] / count_K[k]) if count_K[k] else None,
            "accuracy": float(right_K[k] / count_K[k]) if count_K[k] else None,
        }
        for k in range(bins)
    ]


def best_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The T in [0.01, 100] at which softmax(logits / T) has the lowest negative log-likelihood.

    Args: logits [N, C], raw; labels [N].  The log-likelihood is concave in 1/T, so golden-section search on
    log T finds the one optimum, to about 1e-6.  An end of the range means that there is none inside: a model
    that is always right wants T to be 0.
    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.  Raises: DataError with the first bad row.
    """
    table_NC = np.asarray(logits, dtype=np.float64)
    if table_NC.ndim != 2 or table_NC.size == 0:
        raise DataError(f"the logits have the shape {table_NC.shape}; give a table of rows and classes.")
    check_finite(table_NC, "the table of logits")
    truth_N = checked_labels(labels, table_NC.shape)
    table_NC = table_NC - table_NC.max(axis=1, keepdims=True)
    true_N = table_NC[np.arange(len(table_NC)), truth_N]

    def nll(log_temperature: float) -> float:
        cool = math.exp(-log_temperature)
        return float((np.log(np.exp(table_NC * cool).sum(axis=1)) - true_N * cool).mean())

    golden = (math.sqrt(5.0) - 1.0) / 2.0
    low, high = math.log(COLDEST), math.log(HOTTEST)
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = nll(left), nll(right)
    while high - low > 1e-7:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = nll(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = nll(right)
    return math.exp((low + high) / 2.0)
