"""Questions and answers as files: a batch comes back to its own rows, in any order."""

import json
from pathlib import Path
from typing import Any

import pytest

from stillhouse.asking import Ledger, Request, ask, chat, files
from stillhouse.asking.files import export_batch, unanswered
from stillhouse.data.load import read_raw
from stillhouse.errors import DataError
from stillhouse.recipe import Api
from stillhouse.teachers.past import import_answers, index_questions
from stillhouse.teachers.said import question_of

API = Api(base_url="http://localhost:1/v1", model="big", system="Be brief.")
STORED = Api(model="big", answers="past.jsonl", system="Be brief.")


def asked(count: int = 3) -> list[tuple[dict[str, Any], Request]]:
    rows = [{"id": str(number), "text": f"the {number}. text"} for number in range(count)]
    return [(row, chat(API, f"About: {row['text']}", row=row["id"], purpose="train")) for row in rows]


def take(ledger: Ledger, path: Path, lines: list[Any]) -> list[str | None]:
    """Import `lines`, and tell the text of each row's answer."""
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    pairs = asked()
    ledger.plan(request for _, request in pairs)
    import_answers(ledger, read_raw(path), index_questions(pairs), path.name)
    answers = ask(STORED, [request for _, request in pairs], ledger)
    return [answer and answer.text for answer in answers]


def body(text: str, finish: str = "stop") -> dict[str, Any]:
    return {
        "choices": [{"message": {"content": text}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
    }


def test_a_batch_has_the_form_that_openai_takes(tmp_path: Path) -> None:
    (path,) = export_batch([request for _, request in asked()], tmp_path / "batch.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [set(line) for line in lines] == [{"custom_id", "method", "url", "body"}] * 3
    assert lines[0]["url"] == "/v1/chat/completions"
    assert lines[0]["body"]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "About: the 0. text"},
    ]
    assert len({line["custom_id"] for line in lines}) == 3


def test_a_batch_that_is_too_long_is_cut_without_losing_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_REQUESTS", 2)
    written = export_batch([request for _, request in asked(5)], tmp_path / "batch.jsonl")
    assert [len(path.read_text().splitlines()) for path in written] == [2, 2, 1]
    assert [path.name for path in written] == ["batch.jsonl", "batch-2.jsonl", "batch-3.jsonl"]


def test_what_two_models_or_two_endpoints_are_asked_goes_to_files_of_their_own(tmp_path: Path) -> None:
    """A batch is sent to one endpoint, which takes one model; namesakes could not be told apart in one file."""
    others = [Api(base_url="http://localhost:2/v1", model="big"), API.model_copy(update={"model": "small"})]
    some = [chat(api, "one", row="0", purpose="train") for api in [API, *others, API]]
    written = export_batch(some, tmp_path / "batch.jsonl")
    assert list(written.values()) == [
        "big at http://localhost:1/v1",
        "big at http://localhost:2/v1",
        "small at http://localhost:1/v1",
    ]
    assert [len(path.read_text().splitlines()) for path in written] == [2, 1, 1]


def test_results_find_their_rows_whatever_their_order(ledger: Ledger, tmp_path: Path) -> None:
    """A batch's output is in any order; joined by place, every row would get another one's answer."""
    keys = [request.key for _, request in asked()]
    lines = [
        {"custom_id": keys[2], "response": {"status_code": 200, "body": body("two")}, "error": None},
        {"custom_id": "somebody else's", "response": {"status_code": 200, "body": body("no")}, "error": None},
        {"custom_id": keys[0], "response": {"status_code": 200, "body": body("zero")}, "error": None},
        {"custom_id": keys[1], "response": None, "error": {"code": "batch_expired"}},
    ]
    assert take(ledger, tmp_path / "out.jsonl", lines) == ["zero", None, "two"]
    assert [one.row for one in unanswered(ledger, [request for _, request in asked()])] == ["1"]


def test_errors_of_a_batch_are_final_only_if_they_would_be_elsewhere(ledger: Ledger, tmp_path: Path) -> None:
    keys = [request.key for _, request in asked()]
    lines = [
        {"custom_id": keys[0], "response": {"status_code": 400, "body": {"error": {"message": "too long"}}}},
        {"custom_id": keys[1], "response": {"status_code": 429, "body": {}}},
        {"custom_id": keys[2], "response": {"status_code": 500, "body": {}}},
    ]
    assert take(ledger, tmp_path / "errors.jsonl", lines) == ["", None, None]


@pytest.mark.parametrize(
    "line",
    [
        {"messages": [{"role": "user", "content": "About: the 1. text"}, {"role": "assistant", "content": "one"}]},
        {"request": {"messages": [{"role": "user", "content": "About:  the 1. text "}]}, "response": body("one")},
        {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "About: the 1. text"}], **body("one")},
        {"prompt": "About: the 1. text", "completion": "one"},
        {"text": "the 1. text", "label": "one"},
        {"instruction": "the 1. text", "output": "one"},
    ],
)  # fmt: skip
def test_past_answers_are_found_by_their_question(
    ledger: Ledger, tmp_path: Path, line: dict[str, Any]
) -> None:
    assert take(ledger, tmp_path / "past.jsonl", [{"prompt": "another", "completion": "x"}, line]) == [
        None,
        "one",
        None,
    ]


def test_past_answers_to_turns_with_control_tokens_are_found_as_they_were_and_as_they_are_sent(
    ledger: Ledger, tmp_path: Path
) -> None:
    rows = [
        {
            "id": str(number),
            "messages": [{"role": "user", "content": f"What does <s> or [INST] mean in {number}?"}],
        }
        for number in range(2)
    ]
    rows[1]["messages"].append({"role": "assistant", "content": "Its own."})  # type: ignore[attr-defined]
    pairs = [(row, question_of(row, STORED, "train")) for row in rows]
    sent, raw = pairs[0][1].body["messages"][-1], rows[1]["messages"][0]  # type: ignore[index]
    assert "<s>" not in sent["content"]
    path = tmp_path / "past.jsonl"
    past = [[turn, {"role": "assistant", "content": "A start."}] for turn in (sent, raw)]
    path.write_text("".join(json.dumps({"messages": turns}) + "\n" for turns in past))
    ledger.plan(request for _, request in pairs)
    assert import_answers(ledger, read_raw(path), index_questions(pairs), path.name) == (2, 2)


def test_the_first_answer_stays(ledger: Ledger, tmp_path: Path) -> None:
    lines = [{"text": "the 1. text", "label": answer} for answer in ("first", "second")]
    assert take(ledger, tmp_path / "past.jsonl", lines) == [None, "first", None]


def test_a_line_that_is_no_answer_is_named(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"past.jsonl:2: holds no answer .* its fields are title"):
        take(ledger, tmp_path / "past.jsonl", [{"text": "a", "label": "b"}, {"title": "a"}])
