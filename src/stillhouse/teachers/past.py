"""Past answers of any origin -> the ledger: a batch's output, stored completions, and rows in any format that `data.train` takes.

A batch's line names its question.  Any other answer is found by what was asked, white space aside.
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

QUESTIONS = {"prompt": "prompt_completion", "instruction": "alpaca", "text": "labelled"}
"""Column that holds a question -> the format of its row, the first that is there; turns of a conversation come before all."""
ANSWERS = ("completion", "response", "answer", "output", "label")
"""Columns that may hold an answer where `columns` does not say which, the first that is there."""


def index_questions(asked: Iterable[tuple[Mapping[str, Any], Request]]) -> dict[str, str]:
    """Fingerprint -> key, by the whole question and by the row that it is about."""
    found: dict[str, str] = {}
    for row, request in asked:
        for text in (_question_in(row), question_text(request.body)):
            if text:
                found[fingerprint(text)] = request.key
    return found


def import_answers(
    ledger: Ledger,
    rows: Iterable[Raw],
    index: Mapping[str, str],
    source: str,
    columns: Mapping[str, str] | None = None,
    field: str = "teacher.api",
) -> tuple[int, int]:
    """Take the answers in `rows` into the ledger; those to other questions are passed over.

    Args: columns: our name -> the file's; field: of the recipe, which has them.
    Returns: (answers that belong to a question of ours, rows read).  One that is there already stays as it is.
    Raises: DataError for a row that is no answer in any form known here.
    """
    keys = set(index.values())
    read = taken = 0
    for raw in rows:
        read += 1
        if "custom_id" in raw.fields:
            key, answer = batch_answer(raw.where, raw.fields)
        else:
            question, answer = _past_answer(raw, columns or {}, field)
            key = index.get(fingerprint(question), "")
        if key in keys and answer is not None:
            ledger.keep(key, answer, source)
            taken += 1
    return taken, read


def _question_in(row: Mapping[str, Any]) -> str:
    """What is asked in a canonical row: of a pair both texts, with what no text has between them."""
    if "messages" in row:
        turns = row["messages"]
        return question_text({"messages": turns[:-1] if turns[-1]["role"] == "assistant" else turns})
    text = str(row["prompt"] if "prompt" in row else row["text"])
    return f"{text} \0 {row['pair']}" if "pair" in row else text


def _past_answer(raw: Raw, columns: Mapping[str, str], field: str) -> tuple[str, Answer | None]:
    """(question, answer) of a stored completion or of a row; None if nobody answered."""
    request, response = (
        raw.fields[name] if isinstance(raw.fields.get(name), dict) else raw.fields
        for name in ("request", "response")
    )
    if "choices" not in response:
        row = _row(raw, columns, field)
        return ("", None) if isinstance(row, Dropped) else (_question_in(row), _answer_in(row))
    found = read_answer(response)
    if isinstance(found, str):
        raise DataError(f"{raw.where}: {found}; mend or remove the line.")
    return question_text(request), None if isinstance(found, BrokenOff) else found


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
