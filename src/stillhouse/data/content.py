"""What two rows share if one gives the other away."""

from ..files import hash_bytes
from .formats import Row


def content_key(row: Row, answers: bool = False) -> str:
    """What two rows share if knowing one gives the other away: text and pair, or all that comes before the answer.

    Case and whitespace don't matter, and the label never counts; `answers` takes the completion or last message in.
    """
    if "messages" in row:
        turns = row["messages"]
        # where nothing was asked, the answer is all there is to compare; where nobody answered, the question is
        whole = answers or len(turns) == 1 or turns[-1]["role"] != "assistant"
        parts = [turn["content"] for turn in (turns if whole else turns[:-1])]
    elif "prompt" in row:
        parts = [row["prompt"], row.get("completion", "")] if answers else [row["prompt"]]
    else:
        parts = [row["text"], row["pair"]] if "pair" in row else [row["text"]]
    return hash_bytes("\x1f".join(" ".join(part.casefold().split()) for part in parts).encode())[:32]
