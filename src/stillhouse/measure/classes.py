"""A classifier's errors class by class: precision, recall and F1, as scikit-learn has them.

Shapes: N rows, C classes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .intervals import intervals_by_class
from .metrics import FloatArray, Metric, Rows, mean, ratio


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
    found = {
        name: [intervals_by_class(metric, rows, resamples=resamples, seed=seed) for metric in PER_CLASS]
        for name, rows in models.items()
    }
    support = [int(rows) for rows in next(iter(models.values()))["true"].sum(axis=0)] if models else []
    return [
        {
            "label": label,
            "support": support[number],
            "models": {
                name: {
                    metric.name: of_class[number].as_json()
                    for metric, of_class in zip(PER_CLASS, each, strict=True)
                }
                for name, each in found.items()
            },
        }
        for number, label in enumerate(labels)
    ]


TAKEN = mean("share", "taken", "true", False, "share", "share of a class that is taken for another")
MOST = 12
"""Confusions of a model, the most frequent first."""


def confusions(
    models: dict[str, Rows],
    labels: Sequence[str],
    units: Callable[[Rows], Rows],
    *,
    resamples: int,
    seed: int,
) -> dict[str, list[dict[str, Any]]]:
    """name -> [{"label", "answered", "rows", "share", "intervals": {"share": …}}]; share of the class's rows.

    The classes that a model most often takes for another, and after them those that the other models do, so that each can be
    seen beside the others.

    Args: models: name -> statistics of each row; units: sums statistics over the rows that are resampled together.
    """
    own = {name: _most_taken(rows) for name, rows in models.items()}
    found = {}
    for name, rows in models.items():
        pairs = list(dict.fromkeys([*own[name], *(pair for others in own.values() for pair in others)]))
        if not pairs:
            return {each: [] for each in models}
        classes, answers = (list(side) for side in zip(*pairs, strict=True))
        true_NP = rows["true"][:, classes]
        taken_NP = true_NP * rows["pred"][:, answers]
        shares = intervals_by_class(
            TAKEN, units({"taken": taken_NP, "true": true_NP}), resamples=resamples, seed=seed
        )
        found[name] = [
            {
                "label": labels[a], "answered": labels[b], "rows": int(taken), "share": share.value,
                "intervals": {"share": share.as_json()},
            }
            for (a, b), taken, share in zip(pairs, taken_NP.sum(axis=0), shares, strict=True)
        ]  # fmt: skip
    return found


def _most_taken(rows: Rows) -> list[tuple[int, int]]:
    """(class, answer) of the MOST frequent confusions; of equals, the first classes."""
    counts_CC = rows["true"].T @ rows["pred"]
    np.fill_diagonal(counts_CC, 0.0)
    order = np.argsort(-counts_CC, axis=None, kind="stable")[:MOST]
    pairs = [(int(at) // len(counts_CC), int(at) % len(counts_CC)) for at in order]
    return [(a, b) for a, b in pairs if counts_CC[a, b] > 0]
