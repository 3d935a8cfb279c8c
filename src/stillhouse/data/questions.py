"""Prompts without answers: rows of `data.unlabelled` for a language model."""

from collections.abc import Mapping

from ..errors import DataError
from .detect import detect
from .formats import Dropped, Message, Row, canonical, with_id
from .load import Raw

PLAIN = ("prompt", "instruction", "text")
"""Columns that may hold a prompt, in the order in which they are looked for."""


def question(raw: Raw, columns: Mapping[str, str], key: str, task: str = "causal_lm") -> Row | Dropped:
    """The row that asks, its answer empty.  An answer that is there is left out.  An encoder–decoder is asked by a text alone.

    Raises: DataError if no column holds a prompt.
    """
    fields = dict(raw.fields)
    if task == "seq2seq":
        fields = {name: fields[name] for name in (columns.get("prompt", "prompt"), "text") if name in fields}
    elif columns.get("messages", "messages") in fields or "conversations" in fields:
        return _conversation(raw, columns, key)
    column = columns.get("prompt") or next(
        (name for name in PLAIN if columns.get(name, name) in fields), None
    )
    if column is None or columns.get(column, column) not in fields:
        known = ", ".join(repr(name) for name in fields)
        raise DataError(
            f"{raw.where}: the columns are {known}, and none is a prompt; say which is with {key}.columns: {{prompt: ...}}."
        )
    asked = fields[columns.get(column, column)]
    if column != "instruction":
        if asked is not None and not isinstance(asked, str):
            raise DataError(f"{raw.where}: {column} must be text, not {type(asked).__name__}.")
        if not (asked or "").strip():
            return Dropped(raw.where, "empty prompt")
        return with_id({"prompt": str(asked), "completion": "", "where": raw.where})
    return _emptied(canonical(Raw(raw.where, {**fields, "output": "?"}), "alpaca", columns))


def _conversation(raw: Raw, columns: Mapping[str, str], key: str) -> Row | Dropped:
    """The turns up to the last of the user's."""
    fields = dict(raw.fields)
    form = detect(fields, columns, "causal_lm", raw.where, key)
    column = next(
        name for name in (columns.get("messages", "messages"), "messages", "conversations") if name in fields
    )
    turns = fields[column]
    role, said = ("from", "value") if form == "sharegpt" else ("role", "content")
    if isinstance(turns, list):
        users = [
            number
            for number, turn in enumerate(turns)
            if isinstance(turn, dict) and turn.get(role) in ("user", "human")
        ]
        if not users:
            return Dropped(raw.where, "no question")
        fields[column] = [
            *turns[: users[-1] + 1],
            {role: "gpt" if form == "sharegpt" else "assistant", said: "?"},
        ]
    return _emptied(canonical(Raw(raw.where, fields), form, columns))


def _emptied(row: Row | Dropped) -> Row | Dropped:
    if isinstance(row, Dropped):
        return row
    last: Message = {"role": "assistant", "content": ""}
    row.pop("rationale", None)  # reasons for an answer that nobody gave
    return with_id({**row, "messages": [*row["messages"][:-1], last]})
