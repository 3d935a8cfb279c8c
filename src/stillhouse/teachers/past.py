"""Past answers of any origin -> the ledger: a batch's output, stored completions, and rows in any format that `data.train` takes.

A batch's line names its question, and a stored completion has the whole of it.  A row with an answer may have been asked with any
prompt: it is found by what it is about, or by the whole question.  White space counts in neither.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ..asking import Answer, Ledger, Request
from ..asking.files import batch_answer, fingerprint, question_text
from ..asking.messages import BrokenOff, read_answer
from ..data.detect import turns_column, turns_format
from ..data.formats import Dropped, Row, canonical, has_answer
from ..data.load import Raw
from ..errors import DataError
from .said import plain

QUESTIONS = {"prompt": "prompt_completion", "instruction": "alpaca", "text": "labelled"}
"""Column that holds a question -> the format of its row, the first that is there; turns of a conversation come before all."""
ANSWERS = ("completion", "response", "answer", "output", "label")
"""Columns that may hold an answer where `columns` does not say which, the first that is there."""


def index_questions(asked: Iterable[tuple[Mapping[str, Any], Request]]) -> dict[str, Request]:
    """By the whole question as it is sent, and by the row that it is about -> request."""
    found: dict[str, Request] = {}
    for row, request in asked:
        if text := question_text(request.body):
            found[_whole(text)] = request
        if text := _question_in(row):
            found[_about(text)] = request
    return found


def _whole(question: str) -> str:
    """What a question is found by: with what looks like a control token written as it is sent, as plain text."""
    return fingerprint(plain(question))


def _about(text: str) -> str:
    """What the question about a row is found by: another row's whole question may be this very text."""
    return f"about {fingerprint(text)}"


def import_answers(
    ledger: Ledger,
    rows: Iterable[Raw],
    index: Mapping[str, Request],
    source: str,
    columns: Mapping[str, str] | None = None,
    field: str = "teacher.api",
) -> tuple[int, int]:
    """Take the answers in `rows` into the ledger, as those of the address that each request names; those to other questions are
    passed over.

    Args: columns: our name -> the file's; field: of the recipe, which has them.
    Returns: (answers that belong to a question of ours, rows read).  One that is there already stays as it is.
    Raises: DataError for a row that is no answer in any form known here.
    """
    named = by_name(index.values())
    known = ledger.answers(list(index.values()))
    read = taken = 0
    for raw in rows:
        read += 1
        if "custom_id" in raw.fields:
            name, answer = batch_answer(raw.where, raw.fields)
            request = named.get(name)
        else:
            wanted, answer = _past_answer(raw, columns or {}, field)
            request = next((index[name] for name in wanted if name in index), None)
        if request is None or answer is None:
            continue
        if request.key not in known:
            ledger.keep(request, answer, source)
        taken += 1
    return taken, read


def by_name(requests: Iterable[Request]) -> dict[str, Request]:
    """`custom_id` -> request.  A batch may have gone out before a namesake joined the recipe, or when one was still there: so each has
    all its names, but those that two of them share."""
    names: dict[str, set[str]] = {}
    own = {one.key: one for one in requests}
    for one in own.values():
        for name in (one.question, one.named(one.place)):
            names.setdefault(name, set()).add(one.key)
    return {name: own[min(keys)] for name, keys in names.items() if len(keys) == 1}


def _question_in(row: Mapping[str, Any]) -> str:
    """What is asked in a canonical row: of a pair both texts, with what no text has between them."""
    if "messages" in row:
        turns = row["messages"]
        return question_text({"messages": turns[:-1] if turns[-1]["role"] == "assistant" else turns})
    text = str(row["prompt"] if "prompt" in row else row["text"])
    return f"{text} \0 {row['pair']}" if "pair" in row else text


def _past_answer(raw: Raw, columns: Mapping[str, str], field: str) -> tuple[list[str], Answer | None]:
    """(what the question may be found by, the first that is there; answer) of a stored completion or of a row; None if nobody answered."""
    request, response = (
        raw.fields[name] if isinstance(raw.fields.get(name), dict) else raw.fields
        for name in ("request", "response")
    )
    if "choices" not in response:
        row = _row(raw, columns, field)
        if isinstance(row, Dropped):
            return [], None
        text = _question_in(row)
        return [_about(text), _whole(text)], _answer_in(row)
    found = read_answer(response)
    if isinstance(found, str):
        raise DataError(f"{raw.where}: {found}; mend or remove the line.")
    return [_whole(question_text(request))], None if isinstance(found, BrokenOff) else found


def _row(raw: Raw, columns: Mapping[str, str], field: str) -> Row | Dropped:
    """The row as `data.train` would read it, its answer under any of the names that are usual for one."""
    fields = raw.fields
    answer = (
        columns.get("completion")
        or columns.get("label")
        or next((name for name in ANSWERS if fields.get(name) is not None), None)
    )
    asked = next((name for name in QUESTIONS if name in columns), None) or next(
        (name for name in QUESTIONS if name in fields), None
    )
    if "messages" in columns or (
        not set(columns) & set(QUESTIONS) and turns_column(fields, columns) in fields
    ):
        return canonical(raw, turns_format(fields, columns), columns)
    if asked is None or answer is None:
        raise DataError(
            f"{raw.where}: holds no answer that is known here (custom_id and response; messages; conversations; "
            f"{', '.join(QUESTIONS)} with {', '.join(ANSWERS[:-1])} or {ANSWERS[-1]}); its fields are {', '.join(fields)}; say "
            f"which is which with {field}.columns: {{prompt: ..., completion: ...}}, or {{text: ..., label: ...}}."
        )
    if asked == "instruction" and answer in fields:
        raw = Raw(raw.where, {**fields, "output": fields[answer]})
    return canonical(raw, QUESTIONS[asked], {"completion": answer, "label": answer, **columns})


def _answer_in(row: Row) -> Answer | None:
    if "label" in row:
        return Answer("answered", row["label"])
    if not has_answer(row):
        return None
    return Answer("answered", row["messages"][-1]["content"] if "messages" in row else row["completion"])
