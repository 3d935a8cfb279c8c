"""Questions out and answers in, as files in OpenAI's Batch format."""

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


def batch_answer(where: str, fields: dict[str, Any]) -> tuple[str, Answer | None]:
    """(key, answer) of a line of a batch's output or error file; None for an answer if it may be asked again.

    Raises: DataError for a reply that is none.
    """
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


def unanswered(ledger: Ledger, requests: Sequence[Request]) -> list[Request]:
    """Those without an answer, each once."""
    known = ledger.answers(requests)
    return [one for key, one in {one.key: one for one in requests}.items() if key not in known]
