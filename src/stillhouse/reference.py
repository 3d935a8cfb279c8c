"""Text that comes with every Python: the prose of its language reference, which `help("assert")` and the like show.

English, technical, and of no subject that a student is likely to be taught; it takes no network.  Which sentences it has
follows from Python's version.
"""

import re
from collections.abc import Iterator
from importlib.util import find_spec

NAME = "python_reference"
"""Of the set in tables and charts."""
SOURCE = "python:reference"
LICENCE = "PSF-2.0"
ROWS = 100
"""Passages that are read where a recipe does not say how many held-out rows are; some 20,000 tokens."""
PASSAGE = 100
"""Words after which a passage ends with its paragraph."""
FEWEST = 8
"""Words of a paragraph; a shorter one is a heading or an item of a list."""


def is_here() -> bool:
    """Whether this Python has it; some distributions leave it out of the standard library."""
    return find_spec("pydoc_data") is not None and find_spec("pydoc_data.topics") is not None


def passages() -> Iterator[dict[str, str]]:
    """{"text", "topic"}: paragraphs of one topic, one after the other; none twice, for topics repeat each other."""
    from pydoc_data.topics import topics

    known: set[str] = set()
    for topic, whole in sorted(topics.items()):
        passage: list[str] = []
        for paragraph in map(_prose, re.split(r"\n\s*\n", whole)):
            if paragraph is None or paragraph in known:
                continue
            known.add(paragraph)
            passage.append(paragraph)
            if sum(len(one.split()) for one in passage) >= PASSAGE:
                yield {"text": "\n\n".join(passage), "topic": topic}
                passage = []
        if passage:
            yield {"text": "\n\n".join(passage), "topic": topic}


def _prose(paragraph: str) -> str | None:
    """A paragraph on one line; None for headings, grammar, code and what is drawn."""
    text = " ".join(paragraph.split()).removeprefix("* ")
    whole = text[:1].isupper() and text.endswith((".", ":")) and len(text.split()) >= FEWEST
    return (
        text if whole and not any(mark in text for mark in ("::=", ">>>", "****", "====", "----")) else None
    )
