"""How far the training rows cover what is measured on (or sent in production: a set of `evaluate.coverage`).

Words and vectors of words only: it can show that a subject, a label or a length is missing, and cannot show that what is there
is right.  Every number stands beside the same number for training rows among themselves, which is what rows "of the same kind"
come to.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .filters.texts import parts_of, words
from .filters.vectors import tfidf
from .formats import Row

ROWS = 1000
"""Rows looked at of each set, evenly spread; of training rows so many of those that were made and of the others."""
WIDTH = 4096
CHARACTERS = 4000
"""Looked at of each row."""
LENGTHS = (0, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Borders of the length histogram, in words."""
SHOWN, SHOWN_CHARACTERS = 5, 160


def coverage(train: Sequence[Row], made: Sequence[Row], tests: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Evaluation set -> what the training rows cover of it.

    Args: made: those of `train` that a model wrote or that were made of others; without them the numbers are given again, to see
    what they add, and the training rows are compared among themselves, for these are like the rows that they were made of.
    """
    new = {row["id"] for row in made}
    old = _spread([row for row in train if row["id"] not in new])
    looked = [*old, *_spread([row for row in train if row["id"] in new])]
    alike = old or looked
    half = len(alike) // 2
    within = (alike[half:], alike[:half])
    found: dict[str, Any] = {"within_train": _covered(*within, _nearest(*within)) if half > 1 else None}
    sides = {"train": _spread(train), **({"without_made": old} if new and old else {})}
    for name, rows in tests.items():
        some = _spread(rows)
        nearest = _nearest(looked, some)
        found[name] = {
            "rows_looked_at": len(looked),
            **_covered(looked, some, nearest),
            **_histograms({**sides, "evaluated": some}),
            **_missing(looked, some, nearest),
        }
        if new and old:
            found[name]["without_made"] = _covered(old, some, _nearest(old, some))
    return found


def _spread(rows: Sequence[Row]) -> Sequence[Row]:
    """At most ROWS of them."""
    return [rows[number * len(rows) // ROWS] for number in range(ROWS)] if len(rows) > ROWS else rows


def _covered(train: Sequence[Row], rows: Sequence[Row], nearest: NDArray[np.float32]) -> dict[str, Any]:
    """Shares of the words and runs of words of `rows` that `train` has, and how near its nearest rows are (see `_nearest`)."""
    theirs, mine = [_words(row) for row in rows], [_words(row) for row in train]
    shares = {}
    for length in (1, 2, 3):
        known = {run for found in mine for run in _runs(found, length)}
        runs = [run for found in theirs for run in _runs(found, length)]
        shares[str(length)] = _rounded(sum(run in known for run in runs) / len(runs)) if runs else None
    near = np.sort(nearest)
    return {
        "rows": len(rows),
        "words_known": shares,
        "nearest": {"mean": _rounded(near.mean()), "p05": _rounded(near[len(near) // 20]), "p50": _rounded(near[len(near) // 2])},
    }  # fmt: skip


def _nearest(train: Sequence[Row], rows: Sequence[Row]) -> NDArray[np.float32]:
    """[rows] cosine of each row with the most similar training row."""
    known = [_text(row) for row in train]
    similar: NDArray[np.float32] = tfidf([_text(row) for row in rows], WIDTH, known) @ tfidf(known, WIDTH).T
    return similar.max(1) if similar.size else np.zeros(len(rows), dtype=np.float32)


def _histograms(sides: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Lengths, and labels where the evaluated rows have some, of all sides."""
    lengths = {
        side: [LENGTHS[np.searchsorted(LENGTHS, len(_words(row)), side="right") - 1] for row in rows]
        for side, rows in sides.items()
    }
    found: dict[str, Any] = {"lengths": _shares(lengths, LENGTHS)}
    found["lengths"]["from_words"] = list(LENGTHS)
    if any("label" in row for row in sides["evaluated"]):
        labels = {side: [row["label"] for row in rows if "label" in row] for side, rows in sides.items()}
        found["labels"] = _shares(labels, sorted({*labels["train"], *labels["evaluated"]}))
    return found


def _shares(sides: Mapping[str, Sequence[Any]], keys: Sequence[Any]) -> dict[str, Any]:
    """Side -> the share of each of `keys`; and how far `train` and `evaluated` are apart (0 the same, 1 nothing in common)."""
    shares = {}
    for side, values in sides.items():
        counts = Counter(values)
        found = np.array([counts[key] for key in keys], dtype=np.float64)
        shares[side] = found / max(1.0, found.sum())
    named = {
        side: {str(key): _rounded(share) for key, share in zip(keys, found, strict=True)}
        for side, found in shares.items()
    }
    return {**named, "drift": _rounded(jensen_shannon(shares["train"], shares["evaluated"]))}


def jensen_shannon(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Jensen–Shannon divergence of two distributions in bits: 0 if equal, 1 if nothing is in both (Lin 1991)."""
    middle = (one + other) / 2
    terms = [(some[some > 0] * np.log2(some[some > 0] / middle[some > 0])).sum() / 2 for some in (one, other)]
    return float(sum(terms))


def _missing(train: Sequence[Row], rows: Sequence[Row], nearest: NDArray[np.float32]) -> dict[str, Any]:
    """Words that evaluation rows have and no training row, by the number of rows; and the rows least like any."""
    known = {word for row in train for word in _words(row)}
    counts = Counter(word for row in rows for word in sorted(set(_words(row)) - known))
    far = np.argsort(nearest, kind="stable")[:SHOWN]
    return {
        "missing_words": dict(counts.most_common(2 * SHOWN)),
        "least_covered": [_text(rows[int(at)])[:SHOWN_CHARACTERS] for at in far],
    }


def _text(row: Row) -> str:
    return "\n".join(parts_of(row))[:CHARACTERS]


def _words(row: Row) -> list[str]:
    return words(_text(row))


def _runs(found: Sequence[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(found[at : at + length]) for at in range(len(found) - length + 1)]


def _rounded(value: Any) -> float:
    return round(float(value), 4)
