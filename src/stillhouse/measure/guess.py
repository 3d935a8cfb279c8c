"""Who answers without reading: any label with equal chance."""

import numpy as np
from numpy.typing import ArrayLike

from .metrics import TOP_CLASSES, Rows, classification_rows, with_adaptive_bins

OF_ITS_GUESS = ("correct", "agree", "repeats")
"""Statistics that hang on which label is answered, as chances."""


def uniform_rows(classes: int, labels: ArrayLike, teacher_probabilities: ArrayLike | None = None) -> Rows:
    """The statistics of CLASSIFICATION_METRICS that a fair die of so many sides has on average.

    Args: labels [N], from 0 to classes − 1; the teacher's probabilities [N, C].
    Nothing is drawn: it is right, and agrees with whoever it may be, on 1 / classes of each row, and a drawn order has TOP_CLASSES of
    classes of the teacher's first.
    """
    truth_N = np.asarray(labels)
    shares_NC = np.full((len(truth_N), classes), 1.0 / classes)
    rows = classification_rows(shares_NC, truth_N, teacher_probabilities)
    chance_N = np.full(len(truth_N), 1.0 / classes)
    rows |= {name: chance_N for name in OF_ITS_GUESS if name in rows}
    if "repeats" in rows:
        rows["repeats"] = chance_N * rows["teacher_wrong"]
    if "top3" in rows:
        rows["top3"] = TOP_CLASSES * chance_N
    rows |= {"pred": shares_NC, "tp": rows["true"] / classes, "bin_acc": rows["bin_count"] / classes}
    return with_adaptive_bins(rows)
