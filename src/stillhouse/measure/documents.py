"""Scores that somebody else gave to each document, such as the lm-evaluation-harness: means over D documents."""

from collections.abc import Sequence

import numpy as np

from .metrics import Metric, Rows, mean


def document_metric(name: str, higher_is_better: bool) -> Metric:
    """The mean of `document_rows`."""
    return mean(name, "value", "documents", higher_is_better, "share", name)


def document_rows(values: Sequence[float]) -> Rows:
    """The columns of `document_metric`, [D]."""
    return {"value": np.array(values, dtype=np.float64), "documents": np.ones(len(values))}
