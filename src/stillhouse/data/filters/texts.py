"""What filters look at in a row: its words, its answer, and its letters without what is easily changed."""

import re
import unicodedata

from ..formats import Row

_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]|[^\W_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]+"
)
"""A character of a script without spaces, or a run of letters and digits."""
_APOSTROPHES = str.maketrans("", "", "'’ʼ`")


def words(text: str) -> list[str]:
    """The words of `text` in lower case, without punctuation; "don't" is one, and so is each 漢字 character."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold().translate(_APOSTROPHES))


def letters(text: str) -> str:
    """`text` without case, spaces and punctuation: what stays when somebody disguises a copy."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold()))


def answer_of(row: Row) -> str:
    """What the student learns to say, or the text.  The row must have an answer (see `has_answer`)."""
    if "messages" in row:
        return row["messages"][-1]["content"]
    return row["completion"] if "completion" in row else row["text"]


def parts_of(row: Row) -> list[str]:
    """All texts of a row, but the system's: that one is the same in every row."""
    if "messages" in row:
        return [turn["content"] for turn in row["messages"] if turn["role"] != "system"]
    found = (row.get(name) for name in ("text", "pair", "prompt", "completion"))
    return [part for part in found if isinstance(part, str) and part]
