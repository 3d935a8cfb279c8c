"""Populations whose truth is known, for what is claimed of intervals and tests: shared by tests and benchmarks."""

import numpy as np
from numpy.typing import NDArray

from stillhouse.measure import Rows, classification_rows

Floats = NDArray[np.float64]


def hits(correct: NDArray[np.bool_]) -> Rows:
    """Rows of accuracy."""
    return {"correct": correct.astype(float), "texts": np.ones(len(correct))}


def judges(generator: np.random.Generator, rows: int, *rates: float) -> list[Rows]:
    """Models of the given accuracies that are right on much the same texts."""
    shared = generator.random(rows)
    luck = [np.where(generator.random(rows) < 0.6, shared, generator.random(rows)) for _ in rates]
    return [hits(u < rate) for u, rate in zip(luck, rates, strict=True)]


def windows(generator: np.random.Generator, rows: int, nats: float) -> Rows:
    """Windows of very different lengths whose difficulty goes with their length."""
    tokens = generator.integers(5, 100, rows).astype(float)
    nll = tokens * nats * generator.gamma(4.0, 0.25, rows) * (1.2 - 0.004 * tokens)
    return {"tokens": tokens, "bytes": 4.2 * tokens + generator.integers(0, 20, rows), "nll": nll}


def texts(generator: np.random.Generator, rows: int) -> Rows:
    """Texts of three classes, read by a model that is too sure of itself."""
    logits = generator.normal(size=(rows, 3)) * 1.5
    cumulative = _softmax(logits).cumsum(axis=1)
    labels = (cumulative < generator.random((rows, 1)) - 1e-9).sum(axis=1)
    return classification_rows(_softmax(2.0 * logits), labels)


def alike(generator: np.random.Generator, rows: int) -> tuple[Rows, Rows]:
    """Two language models that differ by luck alone."""
    both = windows(generator, rows, 2.0)
    b = both | {"nll": both["nll"] * generator.gamma(50.0, 0.02, rows)}
    return both | {"nll": both["nll"] * generator.gamma(50.0, 0.02, rows)}, b


def _softmax(logits: Floats) -> Floats:
    exps = np.exp(logits)
    return np.asarray(exps / exps.sum(axis=1, keepdims=True))
