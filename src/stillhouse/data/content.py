"""What rows are known by: what two share if one gives the other away, and all that a model may read of them."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..files import hash_bytes, hash_json
from .formats import Row

if TYPE_CHECKING:  # who only reads data needs no torch
    from .encode import Example


def content_key(row: Row, answers: bool = False) -> str:
    """What two rows share if knowing one gives the other away: text and pair, or all that comes before the answer.

    Case and whitespace don't matter, and the label never counts; `answers` takes the completion or last message in.
    """
    parts = _parts(row, answers)
    return hash_bytes("\x1f".join(" ".join(part.casefold().split()) for part in parts).encode())[:32]


def exact_key(row: Row, answers: bool = False) -> str:
    """As `content_key`, letter for letter."""
    return hash_json(_parts(row, answers))[:32]


def _parts(row: Row, answers: bool) -> list[str]:
    if "messages" in row:
        turns = row["messages"]
        # where nothing was asked, the answer is all there is to compare; where nobody answered, the question is
        whole = answers or len(turns) == 1 or turns[-1]["role"] != "assistant"
        return [turn["content"] for turn in (turns if whole else turns[:-1])]
    if "prompt" in row:
        return [row["prompt"], row.get("completion", "")] if answers else [row["prompt"]]
    return [row["text"], row["pair"]] if "pair" in row else [row["text"]]


def content_of(examples: "Iterable[Example]", rows: Iterable[Mapping[str, Any]] = ()) -> str:
    """Hash of examples, in their order, and of the rows that they were made from, whatever line these stand on."""
    plain = [{name: value for name, value in row.items() if name != "where"} for row in rows]
    return hash_json([[list(vars(example).values()) for example in examples], plain])
