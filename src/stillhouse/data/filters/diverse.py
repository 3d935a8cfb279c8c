"""Some rows that stand for all: no row is far from one that was chosen.

Greedy k-center over hashed TF-IDF vectors of words and pairs of words.  It prefers what is unlike the rest, outliers too, so
filter first.
Sources: Gonzalez 1985 (the greedy algorithm, within twice of the best); Sener & Savarese 2018, arXiv:1708.00489 (for choosing
training rows).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .vectors import tfidf

WIDTH = 256


def diverse(texts: Sequence[str], count: int) -> list[int]:
    """The places of `count` texts, in the order in which they were chosen; the first is the one nearest to the mean."""
    vectors = tfidf(texts, WIDTH)
    if count >= len(texts):
        return list(range(len(texts)))
    chosen = [int(np.argmax(vectors @ vectors.mean(0)))]
    nearest: NDArray[np.float32] = vectors @ vectors[chosen[0]]
    while len(chosen) < count:
        nearest[chosen[-1]] = np.inf  # never again, not even where several texts are equal
        chosen.append(int(np.argmin(nearest)))
        np.maximum(nearest, vectors @ vectors[chosen[-1]], out=nearest)
    return chosen
