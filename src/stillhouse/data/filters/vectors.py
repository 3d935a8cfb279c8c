"""Texts as vectors, without a model: hashed TF-IDF."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ...files import hash_bytes
from .texts import words


def tfidf(texts: Sequence[str], width: int, known: Sequence[str] | None = None) -> NDArray[np.float32]:
    """[texts, width] rows of length 1 (or 0, where a text has no word); their product is about the cosine of TF-IDF vectors.

    Words and pairs of words, (1 + log tf) · log((1 + n) / (1 + df)), each at a place and with a sign that its hash decides.
    Source: Weinberger et al. 2009, arXiv:0902.2206 (feature hashing).

    Args: known: the texts that document frequencies are taken from; `texts` themselves if not given.
    """
    frequencies: Counter[str] = Counter()
    base = texts if known is None else known
    for text in base:
        frequencies.update(set(_terms(text)))
    places: dict[str, tuple[int, float]] = {}
    vectors = np.zeros((len(texts), width), dtype=np.float32)
    for row, text in zip(vectors, texts, strict=True):
        for term, count in Counter(_terms(text)).items():
            if term not in places:
                number = int(hash_bytes(term.encode())[:16], 16)
                sign = 1.0 if number & 1 else -1.0
                places[term] = (
                    (number >> 1) % width,
                    sign * math.log((1 + len(base)) / (1 + frequencies[term])),
                )
            at, weight = places[term]
            row[at] += (1.0 + math.log(count)) * weight
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(lengths > 0, lengths, 1.0)
    return vectors


def _terms(text: str) -> Iterator[str]:
    found = words(text)
    yield from found
    yield from (f"{one} {other}" for one, other in pairwise(found))
