"""Texts cut into smaller rows: sentences, and blocks of paragraphs."""

import re
from collections.abc import Iterator

MIN_WORDS, MAX_WORDS = 5, 60
"""A shorter sentence says too little alone; a longer one is mostly a list or a missed full stop."""

BLOCK = 2_000
"""Characters in a block, at most."""

_LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_SENTENCE_END = re.compile(
    r"""(?:(?<=[.!?])|(?<=[.!?]["'”’)])) (?=["'“‘(A-ZÀ-ÖØ-Þ])""",
)  # fmt: skip
_PARAGRAPH_END = re.compile(r"\n[^\S\n]*\n\s*")


def sentences(text: str) -> list[str]:
    """The sentences of 5 to 60 words in `text`, without HTML line breaks, each run of whitespace one space.

    A sentence ends at . ! or ? before a space and a capital letter or an opening quote.  It doesn't know
    abbreviations: "Mr. Bean" is cut, and its first part is too short to be kept.
    """
    plain = " ".join(_LINE_BREAK.sub(" ", text).split())
    return [part for part in _SENTENCE_END.split(plain) if MIN_WORDS <= part.count(" ") + 1 <= MAX_WORDS]


def blocks(text: str, size: int = BLOCK) -> list[str]:
    """`text` in runs of whole paragraphs of up to `size` characters; a longer paragraph is cut at a space.

    Nothing but the whitespace at the seams is lost.
    """
    found: list[str] = []
    held: list[str] = []
    length = 0
    for piece in _pieces(text, size):
        if held and length + 2 + len(piece) > size:
            found.append("\n\n".join(held))
            held, length = [], 0
        length += len(piece) + (2 if held else 0)
        held.append(piece)
    return [*found, "\n\n".join(held)] if held else found


def _pieces(text: str, size: int) -> Iterator[str]:
    """The paragraphs of `text`, those longer than `size` cut at the last whitespace before it, or hard."""
    for paragraph in _PARAGRAPH_END.split(text.strip()):
        start = 0
        while len(paragraph) - start > size:
            window = paragraph[start : start + size + 1]
            end = max(window.rfind(" "), window.rfind("\n"))
            end = start + (end if end > 0 else size)
            if piece := paragraph[start:end].strip():
                yield piece
            start = end
        if rest := paragraph[start:].strip():
            yield rest
