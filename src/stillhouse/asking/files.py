"""Questions out and answers in, as files: OpenAI's Batch format, and past answers of any origin."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import atomic, hash_bytes
from .ledger import Ledger
from .messages import Answer, BrokenOff, Request, read_answer

MOST_REQUESTS, MOST_BYTES = 50_000, 190_000_000
"""Of one file; OpenAI takes 50,000 requests and 200 MB."""
ANSWERS = ("completion", "response", "answer", "output", "label")
"""Columns that hold an answer, the first that is there."""
FINAL = range(400, 500)
PASSING = (408, 409, 425, 429)


def export_batch(requests: Iterable[Request], path: Path) -> dict[Path, str]:
    """Write `requests` as OpenAI's Batch input, `custom_id` being their key.  More than a file takes, and what another model or endpoint
    is asked, goes to path-2, path-3, …

    Returns: file -> the model and its endpoint.  Source of the format: https://platform.openai.com/docs/guides/batch.
    """
    asked: dict[str, list[Request]] = {}
    for one in requests:
        asked.setdefault(f"{one.body['model']} at {one.place}", []).append(one)
    written: dict[Path, str] = {}
    for whom, some in asked.items():
        for lines in _parts(some):
            number = len(written) + 1
            place = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
            with atomic(place) as part:
                part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            written[place] = whom
    return written


def _parts(requests: Iterable[Request]) -> list[list[str]]:
    """Lines, as many as one file takes at a time."""
    parts: list[list[str]] = [[]]
    size = 0
    for one in requests:
        line = json.dumps(
            {"custom_id": one.key, "method": "POST", "url": f"/v1{one.path}", "body": one.body},
            ensure_ascii=False,
        )
        size += len(line.encode()) + 1
        if parts[-1] and (len(parts[-1]) >= MOST_REQUESTS or size > MOST_BYTES):
            parts.append([])
            size = len(line.encode()) + 1
        parts[-1].append(line)
    return parts


def fingerprint(text: str) -> str:
    """What two spellings of one question share: all but white space."""
    return hash_bytes(" ".join(text.split()).encode())


def question_text(body: Mapping[str, Any]) -> str:
    """A request's question without its system message."""
    if "messages" not in body:
        return str(body.get("prompt", ""))
    return "\n".join(str(turn["content"]) for turn in body["messages"] if turn.get("role") != "system")


def index_questions(asked: Iterable[tuple[Mapping[str, Any], Request]]) -> dict[str, str]:
    """Fingerprint -> key, by the whole question and by the text or prompt of the row it is about."""
    found: dict[str, str] = {}
    for row, request in asked:
        turns = row.get("messages", [])
        before = turns[:-1] if turns and turns[-1]["role"] == "assistant" else turns
        raw = question_text({"messages": before})  # control tokens and all, which are sent as plain text
        for text in (row.get("text"), row.get("prompt"), raw, question_text(request.body)):
            if text and not ("pair" in row and text == row.get("text")):
                found[fingerprint(text)] = request.key
    return found


def import_answers(
    ledger: Ledger, rows: Iterable[tuple[str, dict[str, Any]]], index: Mapping[str, str], source: str
) -> tuple[int, int]:
    """Take the answers in `rows` (where, fields) into the ledger; those to other questions are passed over.

    Returns: (answers that belong to a question of ours, rows read).  One that is there already stays as it is.
    Raises: DataError for a row that is no answer in any form known here.
    """
    keys = set(index.values())
    read = taken = 0
    for where, fields in rows:
        read += 1
        key, answer = _batch_row(where, fields) if "custom_id" in fields else _past_row(where, fields, index)
        if key in keys and answer is not None:
            ledger.keep(key, answer, source)
            taken += 1
    return taken, read


def _batch_row(where: str, fields: dict[str, Any]) -> tuple[str, Answer | None]:
    """A line of a batch's output or error file; None if it may be asked again."""
    response = fields.get("response")
    if not isinstance(response, dict):
        return str(fields["custom_id"]), None  # expired or cancelled
    status, body = response.get("status_code", 200), response.get("body")
    if status in FINAL and status not in PASSING:
        said = body.get("error") if isinstance(body, dict) else None
        message = said.get("message") if isinstance(said, dict) else ""
        return str(fields["custom_id"]), Answer("refused", "", f"HTTP {status}: {str(message)[:300]}")
    found = read_answer(body) if status == 200 else None
    if isinstance(found, BrokenOff):
        return str(fields["custom_id"]), None
    if isinstance(found, str):
        raise DataError(f"{where}: {found}; take the output file of the batch as it came.")
    return str(fields["custom_id"]), found


def _past_row(
    where: str, fields: dict[str, Any], index: Mapping[str, str]
) -> tuple[str | None, Answer | None]:
    """A stored completion, or a row with its answer, found by its question."""
    request = fields.get("request") if isinstance(fields.get("request"), dict) else fields
    response = fields.get("response") if isinstance(fields.get("response"), dict) else fields
    assert request is not None
    assert response is not None
    if "choices" in response:
        found = read_answer(response)
        if isinstance(found, BrokenOff):
            return None, None
        if isinstance(found, str):
            raise DataError(f"{where}: {found}; mend or remove the line.")
        return index.get(fingerprint(question_text(request))), found
    turns = fields.get("messages")
    if (
        isinstance(turns, list)
        and turns
        and isinstance(turns[-1], dict)
        and turns[-1].get("role") == "assistant"
    ):
        return _said(index, question_text({"messages": turns[:-1]}), turns[-1].get("content"))
    question = next(
        (fields[name] for name in ("prompt", "text", "instruction") if isinstance(fields.get(name), str)),
        None,
    )
    said = next((fields[name] for name in ANSWERS if isinstance(fields.get(name), str)), None)
    if question is None or said is None:
        raise DataError(
            f"{where}: holds no answer that is known here (custom_id and response; messages; prompt or text with "
            f"{', '.join(ANSWERS[:-1])} or {ANSWERS[-1]}); its fields are {', '.join(fields)}."
        )
    return _said(index, question, said)


def _said(index: Mapping[str, str], question: str, text: Any) -> tuple[str | None, Answer | None]:
    key = index.get(fingerprint(question))
    return key, Answer("answered", text) if isinstance(text, str) and text.strip() else None


def unanswered(ledger: Ledger, requests: Sequence[Request]) -> list[Request]:
    """Those without an answer, each once."""
    known = ledger.answers(requests)
    return [one for key, one in {one.key: one for one in requests}.items() if key not in known]
