"""Rows that say nearly the same, found by MinHash and locality-sensitive hashing, and then compared for certain.

Two rows are nearly the same if the Jaccard similarity of their sets of three-word runs is at least a threshold.  MinHash
only proposes pairs; each is decided on the sets themselves, so what is dropped was a near duplicate, and what MinHash
overlooks (at most 1 % of the pairs at the threshold, fewer above it) stays.
Sources: Broder 1997 (resemblance, MinHash); Lee et al. 2021, arXiv:2107.06499 (why to do it).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...files import hash_bytes
from .texts import words

RUN = 3
"""Words in a run."""
PERMUTATIONS = 128
MISSED = 0.01
"""Largest share of the pairs at the threshold that are overlooked."""
MOST_COMPARED = 300
"""Proposed rows that a row is compared with, at most: rows of one template would all propose each other."""

Hashes = NDArray[np.uint64]


def near_twins(texts: Sequence[str], threshold: float) -> list[int | None]:
    """For each text the first of the earlier ones that it nearly repeats and that repeats none itself; else None."""
    runs = list(_runs(texts))
    proposals = _proposals(runs, *_bands(threshold))
    twins: list[int | None] = []
    for number, own in enumerate(runs):
        earlier = (other for other in proposals[number] if twins[other] is None)
        compared = (other for other, _ in zip(earlier, range(MOST_COMPARED), strict=False))
        twins.append(next((other for other in compared if jaccard(own, runs[other]) >= threshold), None))
    return twins


def jaccard(one: NDArray[Any], other: NDArray[Any]) -> float:
    """|one ∩ other| / |one ∪ other| of two arrays without repeats; 0 if both are empty."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    union = len(one) + len(other) - shared
    return shared / union if union else 0.0


def _bands(threshold: float) -> tuple[int, int]:
    """(bands, rows in each): the longest bands that overlook at most MISSED of the pairs at the threshold."""
    fits = [
        (PERMUTATIONS // rows, rows)
        for rows in range(1, PERMUTATIONS + 1)
        if (1 - threshold**rows) ** (PERMUTATIONS // rows) <= MISSED
    ]
    return fits[-1]


def _proposals(runs: Sequence[Hashes], bands: int, rows: int) -> list[list[int]]:
    """For each text the earlier ones that have one of its bands, rising."""
    sketches = _sketches(runs)
    found: list[set[int]] = [set() for _ in runs]
    for band in range(bands):
        keys = _mixed(sketches[:, band * rows : (band + 1) * rows].astype(np.uint64))
        order = np.argsort(keys, kind="stable")
        borders = np.flatnonzero(np.diff(keys[order])) + 1
        for bucket in (part.tolist() for part in np.split(order, borders) if len(part) > 1):
            for place, number in enumerate(bucket):
                found[number].update(bucket[: min(place, MOST_COMPARED)])
    return [sorted(some) for some in found]


def _sketches(runs: Sequence[Hashes]) -> NDArray[np.uint32]:
    """[texts, PERMUTATIONS]: the least value of each of as many hash functions h → a·h + b over the text's runs."""
    draw = np.random.default_rng(0)
    factors = draw.integers(0, 2**32, PERMUTATIONS, dtype=np.uint32) | np.uint32(1)
    shifts = draw.integers(0, 2**32, PERMUTATIONS, dtype=np.uint32)
    sketches = np.empty((len(runs), PERMUTATIONS), dtype=np.uint32)
    for row, own in zip(sketches, runs, strict=True):
        high = (own >> np.uint64(32)).astype(np.uint32)
        row[:] = (np.multiply.outer(factors, high) + shifts[:, None]).min(1)
    return sketches


def _runs(texts: Sequence[str]) -> Iterator[Hashes]:
    """The set of a text's runs, each as a 64-bit hash; a text shorter than a run is one run."""
    numbers: dict[str, int] = {}
    for text in texts:
        found = words(text)
        for word in found:
            if word not in numbers:
                numbers[word] = int(hash_bytes(word.encode())[:16], 16)
        hashes = np.array([numbers[word] for word in found], dtype=np.uint64)
        if len(hashes) < RUN:
            hashes = np.pad(hashes, (0, RUN - len(hashes)))
        yield np.unique(_mixed(np.lib.stride_tricks.sliding_window_view(hashes, RUN)))


def _mixed(values: Hashes) -> Hashes:
    """[N, K] -> [N], a hash of each row."""
    factors = np.cumprod(np.full(values.shape[1], 0x9E3779B97F4A7C15, dtype=np.uint64), dtype=np.uint64)
    mixed = values @ factors
    return (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
