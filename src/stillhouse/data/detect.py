"""In which format a row is written: what the user mapped decides, then what its columns are called."""

from collections.abc import Mapping
from typing import Any

from ..errors import DataError
from ..registry import did_you_mean

ONE_FORMAT = {
    "classification": ("labelled", ("text",), "labelled text", "{text: ..., label: ...}"),
    "masked_lm": ("text", ("text",), "text", "{text: ...}"),
    "seq2seq": (
        "prompt_completion",
        ("prompt", "completion"),
        "source and target",
        "{prompt: ..., completion: ...}",
    ),
}
"""Task -> the one format that its rows have, the columns by which it is known, and what a person is told."""
NEEDS = {
    "text": ("text",),
    "labelled": ("text", "label"),
    "messages": ("messages",),
    "sharegpt": ("messages",),
    "prompt_completion": ("prompt", "completion"),
    "alpaca": ("instruction", "output"),
}


def detect(
    fields: Mapping[str, Any],
    columns: Mapping[str, str],
    task: str,
    where: str = "the data",
    key: str = "data.train",
    answered: bool = True,
) -> str:
    """The format of a row: what the user mapped decides, then what the columns are called.

    columns: our name -> the file's.  answered: False if a column of answers may be missing.  `where` and `key` (of the recipe) are only for the message.
    Raises: DataError with the columns found and how to say which is which.
    """

    def has(*names: str) -> bool:
        wanted = names if answered else set(names) - {"completion", "output"}
        return all(columns.get(name, name) in fields for name in wanted)

    if task in ONE_FORMAT:
        kind, wanted, *said = ONE_FORMAT[task]
        if has(*wanted):
            return kind
        for name in wanted:
            if name in columns and columns[name] not in fields:
                raise DataError(absent(where, columns[name], name, fields))
        raise DataError(_unknown(where, key, fields, *said))
    if mapped := [name for name in ("messages", "prompt", "completion", "text") if name in columns]:
        kind = {"messages": "messages", "text": "text"}.get(mapped[0], "prompt_completion")
        return turns_format(fields, columns) if kind == "messages" else kind
    if has("messages") or "conversations" in fields:
        return turns_format(fields, columns)
    if found := next((kind for kind in ("prompt_completion", "alpaca", "text") if has(*NEEDS[kind])), None):
        return found
    raise DataError(_unknown(where, key, fields, "a known format", "{text: ...}"))


def turns_format(fields: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    """Whether the turns of a conversation are written {role, content} or {from, value}."""
    turns = fields.get(turns_column(fields, columns))
    first = turns[0] if isinstance(turns, list) and turns else None
    return "sharegpt" if isinstance(first, dict) and "from" in first else "messages"


def turns_column(fields: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    """The column of a conversation's turns."""
    fallback = "messages" if "messages" in fields or "conversations" not in fields else "conversations"
    return columns.get("messages", fallback)


def _unknown(where: str, key: str, fields: Mapping[str, Any], what: str, example: str) -> str:
    return (
        f"{where}: the columns {_listed(fields)} do not look like {what}; "
        f"say which is which with {key}.columns: {example}."
    )


def _listed(fields: Mapping[str, Any]) -> str:
    return ", ".join(repr(name) for name in fields) or "(none)"


def absent(where: str, column: str, ours: str, fields: Mapping[str, Any]) -> str:
    """That there is no such column, in a sentence with those that there are."""
    return (
        f"{where}: there is no column {column!r} for {ours}; the columns are {_listed(fields)}."
        f"{did_you_mean(column, fields)}"
    )
