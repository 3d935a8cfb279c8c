"""Held-out rows as they come in real life: with typos, in capitals, with words missing, longer than usual.

The answer of a row stays what it was, so every model can be measured on the changed rows beside the clean ones.  What is
changed follows from the seed and the row.  A swapped row has one of a pair of terms in the place of the other ("she" for
"he"): an answer that changes with it depends on what it should not.

A plain text has no answer, and a model that is scored on its own typos would be praised for writing them.  So its first half
is changed and its second half is counted, on the clean side and the changed one (`halves`).  Where terms are swapped the whole
text is counted instead (`wholes`): how much likelier it is with the one term than with the other.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ..seeds import draw_seed
from .formats import Row, with_id

TYPOS, DROPPED = 0.15, 0.15
"""Share of the words that get a typo, or are left out."""

Draw = np.random.Generator
WORD = re.compile(r"\w+")


def perturbed(rows: Iterable[Row], kinds: Sequence[str], seed: int) -> dict[str, list[Row]]:
    """ "eval_<kind>" -> the rows, changed in that way, in the same order and with the same ids."""
    some = list(rows)
    return {
        f"eval_{kind}": [
            _changed(row, CHANGES[kind], np.random.default_rng(draw_seed(seed, kind, row["id"])))
            for row in some
        ]
        for kind in kinds
    }


def swapped(rows: Iterable[Row], pairs: Sequence[Sequence[str]]) -> list[Row]:
    """The rows that hold a term of a pair, each with the other term in its place; both ways, whole words only."""
    other = {one.casefold(): two for one, two in pairs} | {two.casefold(): one for one, two in pairs}
    terms = re.compile(
        r"\b(" + "|".join(map(re.escape, sorted(other, key=len, reverse=True))) + r")\b", re.IGNORECASE
    )

    def swap(text: str, _: Draw) -> str:
        return terms.sub(lambda found: _as_cased(found[0], other[found[0].casefold()]), text)

    draw = np.random.default_rng(0)  # nothing is drawn
    changed = [(row, _changed(row, swap, draw)) for row in rows]
    return [after for before, after in changed if before != after]


def in_pieces(rows: Iterable[Row], cut: Callable[[str], list[str]]) -> list[Row]:
    """Plain texts cut into what a model reads at once; pieces of one text stay in one group, and none is there twice."""
    found: dict[str, Row] = {}
    for row in rows:
        group = row.get("group", row["id"])
        for number, piece in enumerate(cut(row["text"]), 1):
            new = with_id({**row, "text": piece, "group": group, "where": f"{row['where']}#{number}"})
            found.setdefault(new["id"], new)
    return list(found.values())


def halves(pieces: Iterable[Row]) -> list[Row]:
    """Each piece of text as a prompt, its first half, and a completion, the rest; without those that cannot be halved."""
    split = [(row, _middle(row["text"])) for row in pieces]
    return [_asked(row, at) for row, at in split if row["text"][:at].strip() and row["text"][at:].strip()]


def wholes(pieces: Iterable[Row]) -> list[Row]:
    """Each piece of text as a completion that nothing stands before: all of it is counted, but for the first token."""
    return [_asked(row, 0) for row in pieces]


def _asked(row: Row, at: int) -> Row:
    """A text's first `at` characters as a prompt, the others as its completion; the id stays."""
    copy: Any = {key: value for key, value in row.items() if key != "text"}
    copy |= {"prompt": row["text"][:at], "completion": row["text"][at:], "unended": True}
    return copy  # type: ignore[no-any-return]


def _middle(text: str) -> int:
    """Where the second half begins: at the whitespace nearest to the middle, or there itself if a text has none."""
    middle = len(text) // 2
    spaces = [found.start() for found in re.finditer(r"(?<=\S)\s", text)]
    return min(spaces, key=lambda at: abs(at - middle), default=middle)


def asked_texts(row: Row) -> list[str]:
    """Those texts of a row that are changed, in the order in which they are."""
    found: list[str] = []

    def listen(text: str, _: Draw) -> str:
        found.append(text)
        return text

    _changed(row, listen, np.random.default_rng(0))
    return found


def reworded(row: Row, texts: Sequence[str]) -> Row:
    """`row` with `texts` in the place of its `asked_texts`."""
    said = iter(texts)
    return _changed(row, lambda *_: next(said), np.random.default_rng(0))


def _changed(row: Row, change: Callable[[str, Draw], str], draw: Draw) -> Row:
    """`row` with what is asked changed, and the answer as it was.  Its id stays, so that the two can be paired."""
    copy: Any = dict(row)
    for field in ("text", "pair", "prompt"):
        if field in copy:
            copy[field] = change(copy[field], draw)
    if "messages" in copy:
        last = max(
            (number for number, turn in enumerate(copy["messages"]) if turn["role"] == "user"), default=-1
        )
        copy["messages"] = [
            {**turn, "content": change(turn["content"], draw)} if number == last else turn
            for number, turn in enumerate(copy["messages"])
        ]
    return copy  # type: ignore[no-any-return]


def typos(text: str, draw: Draw, share: float = TYPOS, ways: int = 3) -> str:
    """In some words two letters change places, or one is doubled or left out; or, as a fourth way, the key beside it is hit.

    Args: share: of the words of three letters or more; `ways`: how many of these may happen.  Held-out rows know the first three,
        so that what was measured on them can be compared.
    """

    def mistype(found: "re.Match[str]") -> str:
        word = found[0]
        if len(word) < 3 or draw.random() >= share:
            return word
        at, way = int(draw.integers(1, len(word) - 1)), int(draw.integers(ways))
        if way == 3:
            return word[:at] + _beside(word[at], draw) + word[at + 1 :]
        return (
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at] + word[at:],
            word[:at] + word[at + 1 :],
        )[way]

    return WORD.sub(mistype, text)


KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
"""The letters of a keyboard, row by row."""


def _beside(letter: str, draw: Draw) -> str:
    """The key to the left or to the right of a letter's, in its case; what is on none of KEYS stays."""
    row = next((keys for keys in KEYS if letter.lower() in keys), "")
    if not row:
        return letter
    at = row.index(letter.lower())
    near = row[max(0, at - 1) : at] + row[at + 1 : at + 2]
    missed = near[int(draw.integers(len(near)))]
    return missed.upper() if letter.isupper() else missed


def capitals(text: str, _: Draw) -> str:
    """All of it in capitals."""
    return text.upper()


def drop_words(text: str, draw: Draw) -> str:
    """Some words are missing; never all of them."""
    words = text.split(" ")
    kept = [word for word in words if draw.random() >= DROPPED]
    return " ".join(kept) if any(word.strip() for word in kept) else text


def longer(text: str, _: Draw) -> str:
    """Said twice."""
    return f"{text} {text}"


CHANGES: dict[str, Callable[[str, Draw], str]] = {
    "typos": typos, "capitals": capitals, "drop_words": drop_words, "longer": longer,
}  # fmt: skip


def _as_cased(word: str, other: str) -> str:
    """`other` in the case of `word`: SHE for HE, She for He."""
    if word.isupper() and len(word) > 1:
        return other.upper()
    return other[:1].upper() + other[1:] if word[:1].isupper() else other
