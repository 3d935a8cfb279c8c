"""Training rows that give away what is measured on, in whatever case, spacing and punctuation.

Texts are compared by their letters and digits alone.  A training row is contaminated if it shares a window of `length` of
them with an evaluation row; if it holds a whole evaluation text or question that is shorter than a window, but no shorter
than SHORT; or if it is one.  What a good part of the rows share is the template they were written with, no contamination.
Source: OpenAI 2023 (GPT-4), arXiv:2303.08774, appendix C, which compares three windows of 50 a row; here all are compared.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..formats import Row
from .texts import letters, parts_of

SHORT = 20
"""Letters of the shortest evaluation text that is looked for inside others: about four words."""
TEMPLATE_ROWS = 5
TEMPLATE_TRAIN, TEMPLATE_EVAL = 0.2, 0.05
"""What that many rows have, and such a share of the training or of the evaluation rows, belongs to their template."""

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]
_NONE: Hashes = np.zeros(0, dtype=np.uint64)
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2⁶⁴


def contaminated(train: Sequence[Row], tests: Mapping[str, Sequence[Row]], length: int) -> list[str | None]:
    """For each row of `train` the name of an evaluation set that it gives a row of away, or None."""
    parts = [[letters(part) for part in parts_of(row)] for row in train]
    wholes = [_wholes(row) for row in train]
    windows, texts = _Windows(tests, parts, length), _Texts(tests, wholes, length)
    return [
        texts.equal(whole) or windows.shared(own) or texts.inside(own)
        for whole, own in zip(wholes, parts, strict=True)
    ]


def _wholes(row: Row) -> set[str]:
    """The letters of a row, and of its question alone."""
    parts = parts_of(row)
    asked = parts[:-1] if "messages" in row or "completion" in row else parts
    return {found for some in (parts, asked) if (found := letters("".join(some)))}


class _Texts:
    """Whole evaluation rows and questions, for those too short to have a window."""

    def __init__(self, tests: Mapping[str, Sequence[Row]], train: Sequence[set[str]], length: int) -> None:
        found = [(whole, name) for name, rows in tests.items() for row in rows for whole in _wholes(row)]
        often = _often(Counter(whole for whole, _ in found), sum(map(len, tests.values())), TEMPLATE_EVAL)
        known = {whole for whole, _ in found}
        counts = Counter(whole for wholes in train for whole in wholes & known)
        often |= _often(counts, len(train), TEMPLATE_TRAIN)
        self.sets = {whole: name for whole, name in reversed(found) if whole not in often}
        self.short: dict[int, list[str]] = {}  # hash of the first SHORT letters -> texts
        for text in self.sets:
            if SHORT <= len(text) < length:
                self.short.setdefault(int(windows_of(text[:SHORT], SHORT)[0]), []).append(text)
        self.starts = np.array(sorted(self.short), dtype=np.uint64)

    def equal(self, wholes: Iterable[str]) -> str | None:
        """The set that has one of `wholes`."""
        return next((self.sets[whole] for whole in wholes if whole in self.sets), None)

    def inside(self, parts: Iterable[str]) -> str | None:
        """The set of which a short text stands in one of `parts`."""
        for part in parts if self.short else ():
            firsts = windows_of(part, SHORT)
            for at in np.flatnonzero(np.isin(firsts, self.starts)).tolist():
                for text in self.short[int(firsts[at])]:
                    if part.startswith(text, at):
                        return self.sets[text]
        return None


class _Windows:
    """The windows of all evaluation rows, but of their template, each once: its hash, and where it stands."""

    def __init__(
        self, tests: Mapping[str, Sequence[Row]], train: Sequence[Sequence[str]], length: int
    ) -> None:
        self.length = length
        rows = [(name, parts_of(row)) for name, some in tests.items() for row in some]
        self.texts: list[tuple[str, str]] = [(letters(part), name) for name, parts in rows for part in parts]
        hashes = [windows_of(text, length) for text, _ in self.texts]
        owners = np.repeat(np.arange(len(rows)), [len(parts) for _, parts in rows])
        sizes = np.array([len(some) for some in hashes], dtype=np.int64)
        flat = np.concatenate([_NONE, *hashes])
        self._index(flat, np.arange(len(flat)), sizes)
        template = np.union1d(self._common(flat, np.repeat(owners, sizes), len(rows)), self._usual(train))
        own = [
            self._outside(text, some, template) for (text, _), some in zip(self.texts, hashes, strict=True)
        ]
        self._index(flat, np.flatnonzero(np.concatenate([np.zeros(0, bool), *own])), sizes)

    def _index(self, flat: Hashes, which: Places, sizes: Places) -> None:
        """Take in the windows at `which` places of all, once each."""
        self.hashes, first = np.unique(flat[which], return_index=True)
        places = which[first]
        self.text = np.searchsorted(np.cumsum(sizes), places, side="right")
        self.at = places - (np.cumsum(sizes) - sizes)[self.text]

    def _common(self, flat: Hashes, owners: Places, rows: int) -> Hashes:
        """Windows that many evaluation rows have."""
        order = np.lexsort((owners, flat))
        sorted_hashes, sorted_owners = flat[order], owners[order]
        new = np.ones(len(flat), dtype=bool)
        new[1:] = (sorted_hashes[1:] != sorted_hashes[:-1]) | (sorted_owners[1:] != sorted_owners[:-1])
        values, counts = np.unique(sorted_hashes[new], return_counts=True)
        return values[counts >= max(TEMPLATE_ROWS, TEMPLATE_EVAL * rows)]

    def _usual(self, train: Sequence[Sequence[str]]) -> Hashes:
        """Windows of evaluation rows that many training rows have."""
        counts: Counter[int] = Counter()
        for parts in train:
            counts.update({found for part in parts for _, found in self._hits(part)})
        return self.hashes[sorted(_often(counts, len(train), TEMPLATE_TRAIN))]

    def _outside(self, text: str, hashes: Hashes, template: Hashes) -> NDArray[np.bool_]:
        """[windows of a text]: whether at least half of its letters belong to no template."""
        starts = np.zeros(len(text) + 1, dtype=np.int64)
        usual = np.isin(hashes, template)
        starts[: len(hashes)] += usual
        starts[self.length : self.length + len(hashes)] -= usual
        own = np.concatenate([[0], np.cumsum(np.cumsum(starts)[:-1] == 0)])
        enough: NDArray[np.bool_] = (own[self.length :] - own[: -self.length])[
            : len(hashes)
        ] * 2 >= self.length
        return enough

    def shared(self, parts: Iterable[str]) -> str | None:
        """The set of which a window stands in one of `parts`."""
        for part in parts:
            for at, found in self._hits(part):
                text, name = self.texts[int(self.text[found])]
                start = int(self.at[found])
                if text[start : start + self.length] == part[at : at + self.length]:
                    return name
        return None

    def _hits(self, part: str) -> Iterator[tuple[int, int]]:
        """(place in `part`, number) of the windows with the hash of one of ours."""
        if not len(self.hashes):
            return
        found = windows_of(part, self.length)
        near = np.minimum(np.searchsorted(self.hashes, found), len(self.hashes) - 1)
        for at in np.flatnonzero(self.hashes[near] == found).tolist():
            yield at, int(near[at])


def _often(counts: Counter[Any], rows: int, share: float) -> set[Any]:
    return {value for value, count in counts.items() if count >= max(TEMPLATE_ROWS, share * rows)}


def windows_of(text: str, length: int) -> Hashes:
    """A hash of each window of `length` characters: a polynomial modulo 2⁶⁴, from sums over prefixes."""
    if len(text) < length:
        return np.zeros(0, dtype=np.uint64)
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    codes = (codes + np.uint64(1)) * np.uint64(0xBF58476D1CE4E5B9)
    codes ^= codes >> np.uint64(31)
    size = 1 << len(text).bit_length()
    up, down = _powers(_BASE, size), _powers(pow(_BASE, -1, 2**64), size)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(codes * up[: len(text)], dtype=np.uint64)])
    windows: Hashes = (sums[length:] - sums[:-length]) * down[: len(text) - length + 1]
    return windows


@lru_cache(maxsize=8)
def _powers(base: int, count: int) -> Hashes:
    """`base` to the powers 0 … count − 1, modulo 2⁶⁴."""
    factors = np.full(count, base, dtype=np.uint64)
    factors[0] = 1
    powers: Hashes = np.multiply.accumulate(factors)
    return powers
