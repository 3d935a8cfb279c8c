"""A classifier's errors class by class: precision, recall and F1, as scikit-learn has them.

Shapes: N rows, C classes.
"""

from collections.abc import Sequence
from typing import Any

from .intervals import interval
from .metrics import FloatArray, Metric, Rows, mean, ratio, value_or_none

WITH_INTERVALS = 20
"""Classes up to which each number gets its interval; beyond, the values alone are told."""


def _f1(sums: dict[str, FloatArray]) -> FloatArray:
    return ratio(2.0 * sums["tp"], sums["pred"] + sums["true"])


PER_CLASS = (
    mean("precision", "tp", "pred", True, "share", "precision"),
    mean("recall", "tp", "true", True, "share", "recall"),
    Metric("f1", ("tp", "pred", "true"), _f1, True, "share", "F1", biased=True),
)


def class_table(
    models: dict[str, Rows], labels: Sequence[str], *, resamples: int, seed: int
) -> list[dict[str, Any]]:
    """[{"label", "support", "models": name -> {"precision", "recall", "f1"} with intervals}], in the order of `labels`.

    A precision of a class that is never answered is None, as is the recall of one that never occurs.

    Args: models: name -> statistics with `tp`, `pred` and `true`, [N, C].
    """
    several = len(labels) <= WITH_INTERVALS
    table = []
    for number, label in enumerate(labels):
        found: dict[str, Any] = {}
        support = 0
        for name, rows in models.items():
            own = {column: rows[column][:, number] for column in ("tp", "pred", "true")}
            support = int(own["true"].sum())
            found[name] = {
                metric.name: interval(metric, own, resamples=resamples, seed=seed).as_json()
                if several
                else {"value": value_or_none(metric, own), "low": None, "high": None, "note": None}
                for metric in PER_CLASS
            }
        table.append({"label": label, "support": support, "models": found})
    return table


def confusions(rows: Rows, labels: Sequence[str], most: int = 12) -> list[dict[str, Any]]:
    """[{"label", "answered", "rows", "share"}] of the classes most often taken for another; share of the class's rows."""
    counts_CC = rows["true"].T @ rows["pred"]
    support_C = rows["true"].sum(axis=0)
    pairs = [
        (int(counts_CC[a, b]), a, b)
        for a in range(len(labels))
        for b in range(len(labels))
        if a != b and counts_CC[a, b] > 0
    ]
    return [
        {"label": labels[a], "answered": labels[b], "rows": rows_, "share": rows_ / float(support_C[a])}
        for rows_, a, b in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2]))[:most]
    ]
