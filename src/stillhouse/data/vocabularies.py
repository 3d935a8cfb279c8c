"""Two vocabularies: which tokens of the one stand for the same bytes as a token of the other, and which are nearest.

Source of the mapping by edit distance: Wan et al. 2024 (FuseLLM, MinED), arXiv:2401.10491.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from .alignment import Tongue

LONGER = 2
"""Bytes by which a nearest token may be longer or shorter."""


class Vocabularies:
    """What one tokenizer's tokens are in the other's.

    Args: chat: whether an answer ends with its template's end-of-turn token rather than with the end of a text.
    """

    def __init__(self, mine: Tongue, theirs: Tongue, chat: bool = False) -> None:
        self._mine, self._theirs = mine, theirs
        own = {piece: number for number, piece in reversed(list(enumerate(mine.bytes))) if piece}
        pairs = {
            number: own[piece] for number, piece in reversed(list(enumerate(theirs.bytes))) if piece in own
        }
        one_each = {student: teacher for teacher, student in pairs.items()}
        if ends := _ends(mine, theirs, chat):
            one_each[ends[0]] = ends[1]
        self.shared = sorted(one_each.items())
        """(my id, their id) of each token that both have; each id at most once."""
        self._near = {teacher: student for student, teacher in self.shared}
        self._by_length: dict[tuple[int, int], list[int]] = defaultdict(list)
        """(first byte, length) -> my ids."""
        for piece, number in own.items():
            self._by_length[piece[0], len(piece)].append(number)

    def nearest(self, theirs: Sequence[int]) -> list[int]:
        """My token for each of theirs: the same bytes, else the one with the smallest edit distance; −1 for special
        ones, and where no token is like it."""
        return [self._nearest(token) for token in theirs]

    def _nearest(self, token: int) -> int:
        if token not in self._near:
            piece = self._theirs.bytes[token] if token < len(self._theirs.bytes) else None
            self._near[token] = self._search(piece) if piece else -1
        return self._near[token]

    def _search(self, piece: bytes) -> int:
        """Among tokens of like length that begin with the same byte: another script's would be near to nothing."""
        lengths = range(max(1, len(piece) - LONGER), len(piece) + LONGER + 1)
        found = [number for length in lengths for number in self._by_length.get((piece[0], length), [])]
        if not found:
            return -1
        distances = edit_distances(piece, [self._mine.bytes[number] or b"" for number in found])
        return min(zip(distances.tolist(), found, strict=True))[1]


def _ends(mine: Tongue, theirs: Tongue, chat: bool) -> tuple[int, int] | None:
    """(my, their) token that ends an answer, or a text."""
    pair = (
        (mine.end_of_turn(), theirs.end_of_turn())
        if chat
        else (mine.tokenizer.eos_token_id, theirs.tokenizer.eos_token_id)
    )
    return None if None in pair else pair  # type: ignore[return-value]


def edit_distances(word: bytes, others: Sequence[bytes]) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Levenshtein's distance of `word` to each of `others`, [len(others)]; all at once, row by row of the table."""
    longest = max(map(len, others))
    letters = np.full((len(others), longest), -1)
    for number, other in enumerate(others):
        letters[number, : len(other)] = list(other)
    row = np.broadcast_to(np.arange(longest + 1), (len(others), longest + 1)).copy()
    for at, letter in enumerate(word):
        above, row = row, np.empty_like(row)
        row[:, 0] = at + 1
        for place in range(longest):
            change = above[:, place] + (letters[:, place] != letter)
            row[:, place + 1] = np.minimum(np.minimum(above[:, place + 1], row[:, place]) + 1, change)
    ends = np.array([len(other) for other in others])
    found: np.ndarray[tuple[int], np.dtype[np.int64]] = row[np.arange(len(others)), ends]
    return found
