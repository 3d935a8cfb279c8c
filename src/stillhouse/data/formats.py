"""Raw rows -> canonical rows: six ways to write a row down, and one way to hold it.

    text               text                                      -> text
    labelled           text, pair?, label                        -> text, pair?, label
    messages           messages [{role, content}]                -> messages
    prompt_completion  prompt, completion                        -> prompt, completion
    alpaca             instruction, input?, output, system?      -> messages
    sharegpt           conversations [{from, value}], system?    -> messages

The last four may have a `rationale`: the reasons for the (last) answer, which then stand before it (`reasoned`).

A row that can't be used (empty text, no label, no answer) is `Dropped` with its reason; one that is wrong (a column
that isn't there, a number for a text) raises DataError.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from ..errors import DataError
from ..files import hash_json
from .detect import absent, turns_column
from .load import Raw


class Message(TypedDict):
    """One turn; role is system, user, assistant or tool."""

    role: str
    content: str


class Row(TypedDict, total=False):
    """A row as the rest of the house sees it; which keys it has follows from its format."""

    id: str
    """16 hex digits of the SHA-256 of the content below, label included; the same in whichever file or line it is."""
    where: str
    text: str
    pair: str
    messages: list[Message]
    prompt: str
    completion: str
    rationale: str
    """The reasons that the completion, or the last message, begins with; see `reasoned`."""
    unended: bool
    """The completion is a piece of a longer text, so that no end token follows it; not part of the content."""
    label: str
    group: str
    """Rows of one group stay on one side of a split; not part of the content."""
    written: bool
    """Whether a model wrote its answer, so that nobody need be asked for it; not part of the content."""
    teacher: str
    """The member of a panel that teaches this row; not part of the content."""
    context: str
    """What the teacher reads before this row and the student does not; not part of the content."""
    groups: dict[str, str]
    """Values of the columns that `evaluate.groups` names; not part of the content."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row left out, and why."""

    where: str
    reason: str


ROLES = {role: role for role in ("system", "user", "assistant", "tool")}
SHAREGPT_ROLES = {**ROLES, "human": "user", "gpt": "assistant"}
CONTENT = ("text", "pair", "messages", "prompt", "completion", "label")
MARK = "\n\nAnswer: "
"""What stands between reasons and the answer that follows from them."""


def value_of(raw: Raw, column: str, ours: str) -> Any:
    """The value of `column`, which we call `ours`, or DataError with the columns that there are."""
    if column in raw.fields:
        return raw.fields[column]
    raise DataError(absent(raw.where, column, ours, raw.fields))


def plain(value: str | float | bool) -> str:
    """A single value as text: 1 and 1.0 are "1", True is "True"."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def canonical(
    raw: Raw,
    format: str,
    columns: Mapping[str, str],
    labelled: bool = True,
    groups: Sequence[str] = (),
    answered: bool = True,
) -> Row | Dropped:
    """The canonical row of `raw`, or why it is left out.

    columns: our name -> the file's; a `group` is only taken if it is named there.
    labelled: False for rows that have no labels, or whose labels are not to be seen.
    groups: columns whose values a row keeps, to be measured by.
    answered: False if a row without a label or an answer is of use: somebody will be asked for it.
    """
    found = READERS[format](raw, columns) if answered else with_or_without_answer(raw, format, columns)
    column = columns.get("label", "label")
    if format == "labelled" and labelled and isinstance(found, dict) and (answered or column in raw.fields):
        label = _name(raw, column, "label")
        if not label and answered:
            return Dropped(raw.where, "no label")
        if label:
            found["label"] = label
    if isinstance(found, str):
        return Dropped(raw.where, found)
    if "group" in columns and (group := _name(raw, columns["group"], "group")):
        found["group"] = group
    if "teacher" in columns and (teacher := _name(raw, columns["teacher"], "teacher")):
        found["teacher"] = teacher
    if reasons := _rationale(raw, format, columns):
        found = reasoned(found, reasons)
    if groups:
        found["groups"] = {column: _name(raw, column, "group") for column in groups}
    found["where"] = raw.where
    return with_id(found)


def has_answer(row: Row) -> bool:
    """Whether a row of a language model holds an answer of its own; one of a classifier always does, or needs none."""
    if "messages" in row:
        return row["messages"][-1]["role"] == "assistant"
    return "completion" in row or "prompt" not in row


def nobody_asks(before: Sequence[Message]) -> bool:
    """Whether there is no turn before an answer, or the system's alone."""
    return all(turn["role"] == "system" for turn in before)


def with_or_without_answer(raw: Raw, format: str, columns: Mapping[str, str]) -> Row | str:
    """The row as it is, or, where nobody answered, its question alone: read with a stand-in, which is taken off again."""
    if format in ("text", "labelled"):
        return READERS[format](raw, columns)
    column = {"prompt_completion": columns.get("completion", "completion"), "alpaca": "output"}.get(format)
    if column is not None:
        found = READERS[format](Raw(raw.where, {column: None, **raw.fields}), columns)
    else:
        found, column = READERS[format](raw, columns), turns_column(raw.fields, columns)
    turns = found["messages"] if isinstance(found, dict) and "messages" in found else None
    if turns is not None and nobody_asks(turns[:-1]):
        return "nobody asks"
    if found != "no answer":
        return found
    before = raw.fields.get(column)
    ours = {"role": "assistant", "content": "?"} if format == "messages" else {"from": "gpt", "value": "?"}
    stand_in: Any = [*before, ours] if isinstance(before, list) and before else "?"
    if stand_in == "?" and format in ("messages", "sharegpt"):
        return "empty prompt"
    found = READERS[format](Raw(raw.where, {**raw.fields, column: stand_in}), columns)
    if isinstance(found, dict) and "messages" in found:
        found["messages"] = found["messages"][:-1]
        if found["messages"][-1]["role"] != "user":
            return "nobody asks"
    elif isinstance(found, dict):
        del found["completion"]
    return found


def with_id(row: Row) -> Row:
    """`row`, its id set from its content."""
    row["id"] = hash_json({key: row[key] for key in CONTENT if key in row})[:16]  # type: ignore[literal-required]
    return row


def reasoned(row: Row, reasons: str) -> Row:
    """`row` with `reasons` before its (last) answer: the one way in which they get there, a file's and a writer's alike.

    Source: Hsieh et al. 2023 (distilling step-by-step), arXiv:2305.02301; one sequence instead of its two tasks.
    Returns: the row itself if nobody answered it; an answer that begins with its reasons already stays as it is.
    """
    reasons = reasons.strip()
    new: Row = {**row, "rationale": reasons}
    if "completion" in row:
        if not row["completion"].lstrip().startswith(reasons):
            new["completion"] = f"\n{reasons}{MARK}{row['completion'].strip()}"
    elif "messages" in row and row["messages"][-1]["role"] == "assistant":
        said = row["messages"][-1]["content"].strip()
        joined = said if said.startswith(reasons) else f"{reasons}{MARK}{said}"
        new["messages"] = [*row["messages"][:-1], {"role": "assistant", "content": joined}]
    else:
        return row
    return with_id(new)


def answer_alone(text: str) -> str:
    """What follows the reasons in an answer that gives some; all of it in one that does not."""
    return text.rpartition(MARK)[2]


def _rationale(raw: Raw, format: str, columns: Mapping[str, str]) -> str:
    """The reasons that a row of the file gives; "" if it gives none."""
    column = columns.get("rationale", "rationale")
    if format in ("text", "labelled"):
        if "rationale" in columns:
            raise DataError(
                f"{raw.where}: columns.rationale: only rows with a prompt or messages have reasons for an answer; remove it."
            )
        return ""
    return _string(raw, column, "rationale") if column in raw.fields or "rationale" in columns else ""


def _name(raw: Raw, column: str, ours: str) -> str:
    """A label or group as text, or "" if it is missing."""
    value = value_of(raw, column, ours)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, str | int) and not (isinstance(value, float) and value.is_integer()):
        raise DataError(
            f"{raw.where}: {column} is {json.dumps(value, default=str)[:40]}; a {ours} must be text, a whole number, "
            "true or false."
        )
    return plain(value).strip()


def _string(raw: Raw, column: str, ours: str) -> str:
    """A text; "" if it is missing or blank."""
    value = value_of(raw, column, ours)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, str):
        raise DataError(
            f"{raw.where}: {column} must be text, not {type(value).__name__} ({json.dumps(value, default=str)[:40]})."
        )
    return value if value.strip() else ""


def _text(raw: Raw, columns: Mapping[str, str]) -> Row | str:
    text = _string(raw, columns.get("text", "text"), "text")
    return {"text": text} if text else "empty text"


def _labelled(raw: Raw, columns: Mapping[str, str]) -> Row | str:
    row = _text(raw, columns)
    if isinstance(row, str) or not ("pair" in columns or "pair" in raw.fields):
        return row
    pair = _string(raw, columns.get("pair", "pair"), "pair")
    return {**row, "pair": pair} if pair else "empty pair"


def _prompt_completion(raw: Raw, columns: Mapping[str, str]) -> Row | str:
    prompt = _string(raw, columns.get("prompt", "prompt"), "prompt")
    completion = _string(raw, columns.get("completion", "completion"), "completion")
    if not prompt:
        return "empty prompt"
    return {"prompt": prompt, "completion": completion} if completion else "no answer"


def _alpaca(raw: Raw, columns: Mapping[str, str]) -> Row | str:
    user, answer = _string(raw, "instruction", "instruction"), _string(raw, "output", "output")
    if not user:
        return "empty prompt"
    if not answer:
        return "no answer"
    if "input" in raw.fields and (more := _string(raw, "input", "input")):
        user = f"{user}\n\n{more}"
    return {
        "messages": [
            *_system(raw),
            {"role": "user", "content": user},
            {"role": "assistant", "content": answer},
        ]
    }


def _system(raw: Raw) -> list[Message]:
    """The system message of a row that keeps it in a column of its own."""
    text = _string(raw, "system", "system") if "system" in raw.fields else ""
    return [{"role": "system", "content": text}] if text else []


def _messages(raw: Raw, columns: Mapping[str, str]) -> Row | str:
    return _chat(raw, columns, "role", "content", ROLES)


def _sharegpt(raw: Raw, columns: Mapping[str, str]) -> Row | str:
    row = _chat(raw, columns, "from", "value", SHAREGPT_ROLES)
    return row if isinstance(row, str) else {"messages": [*_system(raw), *row["messages"]]}


def _chat(
    raw: Raw, columns: Mapping[str, str], role: str, content: str, roles: Mapping[str, str]
) -> Row | str:
    """The turns of a conversation.  One that calls tools is left out: its calls are no text."""
    column = turns_column(raw.fields, columns)
    turns = value_of(raw, column, "messages")
    if turns is None or turns == []:
        return "no answer"
    if not isinstance(turns, list):
        raise DataError(
            f"{raw.where}: {column} must be a list of {{{role}, {content}}}, not {type(turns).__name__}."
        )
    if any(isinstance(turn, dict) and turn.get("tool_calls") for turn in turns):
        return "tool calls"
    messages: list[Message] = []
    for number, turn in enumerate(turns):
        at = f"{raw.where}: {column}[{number}]"
        if not isinstance(turn, dict) or role not in turn or content not in turn:
            raise DataError(f"{at} must be an object with {role!r} and {content!r}, not {str(turn)[:40]!r}.")
        who = turn[role]
        if not isinstance(who, str) or who not in roles:
            raise DataError(f"{at}: {role} is {who!r}; it must be one of {', '.join(roles)}.")
        messages.append({"role": roles[who], "content": _content(turn[content], f"{at}.{content}")})
    if messages[-1]["role"] != "assistant" or not messages[-1]["content"].strip():
        return "no answer"
    return {"messages": messages}


def _content(value: Any, at: str) -> str:
    """The text of a turn: a string, or the joined parts of a list of {"type": "text", "text": ...}."""
    if isinstance(value, str):
        return value
    parts = [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []
    if parts and len(parts) == len(value) and all(part.get("type") == "text" for part in parts):
        return "".join(_content(part.get("text"), at) for part in parts)
    raise DataError(f"{at} must be text, or a list of parts of type text; images and sound are not read.")


READERS: dict[str, Callable[[Raw, Mapping[str, str]], Row | str]] = {
    "text": _text,
    "labelled": _labelled,
    "messages": _messages,
    "prompt_completion": _prompt_completion,
    "alpaca": _alpaca,
    "sharegpt": _sharegpt,
}
