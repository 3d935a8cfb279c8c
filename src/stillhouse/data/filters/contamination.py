"""Training rows that give away what is measured on, in whatever case, spacing and punctuation.

Texts are compared by their letters and digits alone.  A training row is contaminated if it shares a window of `length` of
them with an evaluation row; if it holds a whole evaluation text or question that is shorter than a window, but no shorter
than SHORT; or if it is one.  What a good part of the rows share is the template they were written with, no contamination,
unless all of them are of one `group`: a passage that many questions are about is no template.  Not told apart: such a passage
from a template, where no group says which rows share it or where more than half of a set do (it is taken for a template, and
may stay in a training row); and an instruction that one group alone has from a passage (rows with it are dropped).
Source: OpenAI 2023 (GPT-4), arXiv:2303.08774, appendix C, which compares three windows of 50 a row; here all are compared.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
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
"""What that many have, and such a share of the training rows or of the evaluation documents, belongs to their template."""

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]
_NONE: Hashes = np.zeros(0, dtype=np.uint64)
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2⁶⁴


def contaminated(train: Sequence[Row], tests: Mapping[str, Sequence[Row]], length: int) -> list[str | None]:
    """For each row of `train` the name of an evaluation set that it gives a row of away, or None.

    Rows of `tests` with the same `id` are one document, which counts once; documents with the same `group` share a passage.
    """
    parts = [[letters(part) for part in parts_of(row)] for row in train]
    wholes = [_wholes(row) for row in train]
    owners = _Owners(tests)
    windows, texts = _Windows(tests, owners, parts, length), _Texts(tests, owners, wholes, length)
    return [
        texts.equal(whole) or windows.shared(own) or texts.inside(own)
        for whole, own in zip(wholes, parts, strict=True)
    ]


def _wholes(row: Row) -> set[str]:
    """The letters of a row, and of its question alone."""
    parts = parts_of(row)
    asked = parts[:-1] if "messages" in row or "completion" in row else parts
    return {found for some in (parts, asked) if (found := letters("".join(some)))}


class _Owners:
    """Whose the evaluation rows are, in their order.

    A row without an `id` is a document of its own, and so a document without a `group`, or with one that more than half of its set
    have: what so many share is a template, even if it is called a group.
    """

    def __init__(self, tests: Mapping[str, Sequence[Row]]) -> None:
        numbers: dict[tuple[str, str | int], int] = {}
        grouped: list[tuple[str, str | None]] = []  # of each document
        rows = [(name, at, row) for name, some in tests.items() for at, row in enumerate(some)]
        self.document = np.zeros(len(rows), dtype=np.int64)
        for place, (name, at, row) in enumerate(rows):
            key = (name, row.get("id", at))
            if key not in numbers:
                numbers[key] = len(numbers)
                grouped.append((name, row.get("group")))
            self.document[place] = numbers[key]
        sizes, whole = Counter(grouped), Counter(name for name, _ in grouped)
        shared = {one for one, size in sizes.items() if one[1] is not None and 2 * size <= whole[one[0]]}
        groups: dict[Any, int] = {}
        owned = [one if one in shared else number for number, one in enumerate(grouped)]
        self.group = np.array([groups.setdefault(one, len(groups)) for one in owned], dtype=np.int64)

    def template(self, values: NDArray[Any], rows: Places) -> NDArray[Any]:
        """Those of `values` that many documents have, and not those of one group alone.  Args: rows: the row that has each."""
        documents = self.document[rows]
        order = np.lexsort((documents, values))
        values, documents = values[order], documents[order]
        new = np.ones(len(values), dtype=bool)
        new[1:] = (values[1:] != values[:-1]) | (documents[1:] != documents[:-1])
        groups = self.group[documents[new]]
        found, first, counts = np.unique(values[new], return_index=True, return_counts=True)
        if not len(found):
            return found
        several = np.minimum.reduceat(groups, first) < np.maximum.reduceat(groups, first)
        return found[several & (counts >= max(TEMPLATE_ROWS, TEMPLATE_EVAL * len(self.group)))]


class _Texts:
    """Whole evaluation rows and questions, for those too short to have a window."""

    def __init__(
        self, tests: Mapping[str, Sequence[Row]], owners: _Owners, train: Sequence[set[str]], length: int
    ) -> None:
        rows = [(name, _wholes(row)) for name, some in tests.items() for row in some]
        numbers: dict[str, int] = {}
        values = [numbers.setdefault(whole, len(numbers)) for _, wholes in rows for whole in wholes]
        places = _numbered(wholes for _, wholes in rows)
        known = list(numbers)
        often = {known[one] for one in owners.template(np.array(values, dtype=np.int64), places)}
        counts = Counter(whole for wholes in train for whole in wholes & numbers.keys())
        often |= _often(counts, len(train), TEMPLATE_TRAIN)
        self.sets = {whole: name for name, wholes in reversed(rows) for whole in wholes if whole not in often}
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
        self, tests: Mapping[str, Sequence[Row]], owners: _Owners, train: Sequence[Sequence[str]], length: int
    ) -> None:
        self.length = length
        rows = [(name, parts_of(row)) for name, some in tests.items() for row in some]
        self.texts: list[tuple[str, str]] = [(letters(part), name) for name, parts in rows for part in parts]
        hashes = [windows_of(text, length) for text, _ in self.texts]
        places = _numbered(parts for _, parts in rows)
        sizes = np.array([len(some) for some in hashes], dtype=np.int64)
        flat = np.concatenate([_NONE, *hashes])
        self._index(flat, np.arange(len(flat)), sizes)
        template = np.union1d(owners.template(flat, np.repeat(places, sizes)), self._usual(train))
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


def _numbered(some: Iterable[Sized]) -> Places:
    """The number of each of `some`, as often as it has members."""
    sizes = np.array([len(one) for one in some], dtype=np.int64)
    return np.repeat(np.arange(len(sizes)), sizes)


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
