"""The temperature that would mend a model's confidence, and what it would be worth on rows that did not choose it.

Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
"""

from typing import Any

import numpy as np

from .calibration import best_temperature
from .metrics import CLASSIFICATION_METRICS, FloatArray, Rows, classification_rows, evaluate

TEMPERATURES = (0.5, 0.63, 0.79, 1.0, 1.26, 1.59, 2.0)
"""At which a language model's likelihood is measured; its best temperature is read off between them."""
FEWEST = 40
"""Rows below which no temperature is chosen."""


def mended(rows: Rows) -> dict[str, Any] | None:
    """{"temperature", "nll", "nll_mended", "ece", "ece_mended"} of a model; None where it cannot be told.

    A classifier's after-values are cross-fitted: each half of the rows is read at the temperature that is best on the
    other half, so that they promise nothing that new rows would not keep.
    """
    if "log_probs" in rows:
        return _classifier(rows)
    return _language_model(rows) if "nll_at" in rows else None


def _classifier(rows: Rows) -> dict[str, Any] | None:
    truth_N = rows["true"].argmax(axis=1)
    scores_NC = rows["log_probs"]
    if len(truth_N) < FEWEST or not rows["true"].any(axis=1).all():
        return None
    half_N = np.arange(len(truth_N)) % 2 == 0
    after_NC = np.empty_like(scores_NC)
    for here in (half_N, ~half_N):
        after_NC[here] = softmax(scores_NC[here] / best_temperature(scores_NC[~here], truth_N[~here]))
    found = {"temperature": best_temperature(scores_NC, truth_N)}
    for name in ("nll", "ece"):
        metric = CLASSIFICATION_METRICS[name]
        found[name] = evaluate(metric, rows)
        found[f"{name}_mended"] = evaluate(metric, classification_rows(after_NC, truth_N))
    return found


def _language_model(rows: Rows) -> dict[str, Any] | None:
    """By a parabola through the three lowest of the measured points; None where the lowest is at an end."""
    at_T, count = rows["nll_at"].sum(axis=0), float(rows["nll_at_count"].sum())
    if count < FEWEST:
        return None
    nats = at_T / count
    best = int(nats.argmin())
    if best in (0, len(nats) - 1):
        return None
    near = slice(best - 1, best + 2)
    square, slope, level = np.polyfit(np.log(TEMPERATURES[near]), nats[near], 2)
    lowest = -slope / (2 * square)
    return {
        "temperature": float(np.exp(lowest)),
        "nll": float(nats[TEMPERATURES.index(1.0)]),
        "nll_mended": float(level - slope**2 / (4 * square)),
        "ece": None,
        "ece_mended": None,
    }


def softmax(scores_NC: FloatArray) -> FloatArray:
    """Rows that sum to 1."""
    exps_NC = np.exp(scores_NC - scores_NC.max(axis=1, keepdims=True))
    return np.asarray(exps_NC / exps_NC.sum(axis=1, keepdims=True))
