"""Past answers of any origin find their questions, in whatever format they lie there."""

import json
from pathlib import Path
from typing import Any

import pytest

from stillhouse.asking import Ledger
from stillhouse.data.formats import canonical
from stillhouse.data.load import Raw, read_raw
from stillhouse.errors import DataError
from stillhouse.recipe import Api
from stillhouse.teachers.past import import_answers, index_questions
from stillhouse.teachers.said import question_of, questions_about, questions_with

API = Api(model="big", answers="past.jsonl")
PROMPT = {"prompt": "Name a colour.", "completion": ""}
TURNS = {
    "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Sort:\n\n3 1 2"}]
}
TEXT = {"text": "A dull film.", "label": "bad"}
PAIR = {"text": "It rains.", "pair": "It is wet."}


def said(tmp_path: Path, line: dict[str, Any], columns: dict[str, str] | None = None) -> dict[str, str]:
    """Id of the row -> the answer that came to it from a file with this one line."""
    path = tmp_path / "past.jsonl"
    path.write_text(json.dumps(line) + "\n")
    rows = {"prompt": PROMPT, "turns": TURNS, "text": TEXT, "pair": PAIR}
    pairs = []
    for name, row in rows.items():
        row = {**row, "id": name}
        pairs.append(
            (
                row,
                questions_about([row], ["good", "bad"], API, "train")[0]
                if "text" in row
                else question_of(row, API, "train"),
            )
        )
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.plan(request for _, request in pairs)
        import_answers(
            ledger, read_raw(path), index_questions(pairs), path.name, columns, "teacher.panel[1].api"
        )
        known = ledger.answers([request for _, request in pairs])
        return {request.row: known[request.key].text for _, request in pairs if request.key in known}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ({"conversations": [{"from": "human", "value": "Name a colour."}, {"from": "gpt", "value": "Red."}]}, {"prompt": "Red."}),
        ({"conversations": [{"from": "human", "value": "Sort:\n\n3 1 2"}, {"from": "gpt", "value": "1 2 3"}], "system": "x"}, {"turns": "1 2 3"}),
        ({"instruction": "Sort:", "input": "3 1 2", "output": "1 2 3"}, {"turns": "1 2 3"}),
        ({"instruction": "Sort:", "input": "3 1 2", "response": "1 2 3"}, {"turns": "1 2 3"}),
        ({"instruction": "Name a colour.", "input": "", "output": "Red."}, {"prompt": "Red."}),
        ({"text": "It rains.", "pair": "It is wet.", "label": "good"}, {"pair": "good"}),
        ({"text": "A dull film.", "label": "bad"}, {"text": "bad"}),
        ({"text": "A dull film.", "label": 3}, {"text": "3"}),
        ({"prompt": "Name a colour.", "completion": "Red.", "rationale": "Sky?"}, {"prompt": "\nSky?\n\nAnswer: Red."}),
    ],
)  # fmt: skip
def test_answers_are_found_in_every_format_that_training_rows_have(
    tmp_path: Path, line: dict[str, Any], found: dict[str, str]
) -> None:
    assert said(tmp_path, line) == found


@pytest.mark.parametrize(
    ("line", "columns", "found"),
    [
        ({"question": "Name a colour.", "reply": "Red."}, {"prompt": "question", "completion": "reply"}, {"prompt": "Red."}),
        ({"prompt": "Name a colour.", "completion": "no", "reply": "Red."}, {"completion": "reply"}, {"prompt": "Red."}),
        ({"one": "It rains.", "two": "It is wet.", "stars": "good"}, {"text": "one", "pair": "two", "label": "stars"}, {"pair": "good"}),
        ({"text": "A dull film.", "stars": "bad"}, {"label": "stars"}, {"text": "bad"}),
        ({"chat": [{"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": "Red."}]}, {"messages": "chat"}, {"prompt": "Red."}),
    ],
)  # fmt: skip
def test_columns_say_which_is_the_question_and_which_the_answer(
    tmp_path: Path, line: dict[str, Any], columns: dict[str, str], found: dict[str, str]
) -> None:
    assert said(tmp_path, line, columns) == found


@pytest.mark.parametrize(
    "line",
    [
        {"text": "It rains.", "label": "good"},  # of a pair, one text is not the question
        {"text": "It is wet.", "pair": "It rains.", "label": "good"},
        {"prompt": "Name a colour.", "completion": ""},
        {"conversations": [{"from": "human", "value": "Name a colour."}]},
    ],
)
def test_another_question_and_a_question_without_an_answer_are_passed_over(
    tmp_path: Path, line: dict[str, Any]
) -> None:
    assert said(tmp_path, line) == {}


def test_unknown_names_are_refused_with_the_field_that_says_them(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"past.jsonl:1: .*question, reply; .* teacher.panel\[1\].api.columns: \{prompt"
    ):
        said(tmp_path, {"question": "Name a colour.", "reply": "Red."})
    with pytest.raises(DataError, match="there is no column 'ask' for prompt"):
        said(
            tmp_path,
            {"question": "Name a colour.", "reply": "Red."},
            {"prompt": "ask", "completion": "reply"},
        )


def test_an_answered_training_row_finds_itself(tmp_path: Path) -> None:
    """What `data.train` makes of a row is what the row is found by when it comes as a past answer."""
    fields = {"instruction": "Sort:", "input": "3 1 2", "output": "1 2 3", "system": "Be kind."}
    row = canonical(Raw("x", fields), "alpaca", {})
    assert isinstance(row, dict)
    request = question_of(dict(row), API, "train")
    index = index_questions([(row, request)])
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.plan([request])
        assert import_answers(ledger, [Raw("x", fields)], index, "x") == (1, 1)


def test_a_stored_completion_is_found_by_its_whole_question_and_a_row_by_what_it_is_about(
    tmp_path: Path,
) -> None:
    """A source may read like another source's whole question, and a request may have control tokens that are sent as plain text."""
    api = Api(model="big", answers="past.jsonl", prompt="Shorten <s>: {text}")
    rows = [{"id": "bare", "prompt": "It rains."}, {"id": "like", "prompt": "Shorten <s>: It rains."}]
    pairs = list(zip(rows, questions_with(rows, api, "train"), strict=True))
    index = index_questions(pairs)

    def found(line: dict[str, Any]) -> list[str]:
        with Ledger(tmp_path / f"{len(list(tmp_path.iterdir()))}.sqlite") as ledger:
            ledger.plan(request for _, request in pairs)
            import_answers(ledger, [Raw("x", line)], index, "x")
            known = ledger.answers([request for _, request in pairs])
        return [request.row for _, request in pairs if request.key in known]

    def stored(text: str) -> dict[str, Any]:
        said = {"choices": [{"message": {"content": "Wet."}, "finish_reason": "stop"}]}
        return {"request": {"messages": [{"role": "user", "content": text}]}, "response": said}

    assert found(stored("It rains.")) == []
    assert found(stored("Shorten <s>: It rains.")) == ["bare"]
    assert found(stored("Shorten <s>: Shorten <s>:  It rains.")) == ["like"]
    assert found({"prompt": "It rains.", "completion": "Wet."}) == ["bare"]
    assert found({"prompt": "Shorten <s>: It rains.", "completion": "Wet."}) == ["like"]
    assert found({"prompt": "Shorten <s>: Shorten <s>: It rains.", "completion": "Wet."}) == ["like"]
