"""Rows that nobody answered yet: of use where a teacher can be asked, and dropped where not."""

from typing import Any

import pytest

from stillhouse.data.detect import detect
from stillhouse.data.formats import Dropped, canonical
from stillhouse.data.load import Raw
from stillhouse.data.split import content_key

ASKED = {"role": "user", "content": "Why?"}
ROWS: list[tuple[str, dict[str, Any]]] = [
    ("prompt_completion", {"prompt": "Why?"}),
    ("prompt_completion", {"prompt": "Why?", "completion": ""}),
    ("alpaca", {"instruction": "Why?"}),
    ("alpaca", {"instruction": "Why?", "input": "", "output": None}),
    ("messages", {"messages": [ASKED]}),
    ("sharegpt", {"conversations": [{"from": "human", "value": "Why?"}]}),
]


@pytest.mark.parametrize(("form", "fields"), ROWS)
def test_a_question_alone_is_a_row_where_somebody_can_be_asked(form: str, fields: dict[str, Any]) -> None:
    assert detect(fields, {}, "causal_lm", answered=False) == form
    row = canonical(Raw("a:1", fields), form, {}, answered=False)
    assert not isinstance(row, Dropped)
    if "messages" in row:
        assert row["messages"] == [ASKED]
    else:
        assert row["prompt"] == "Why?"
        assert "completion" not in row


@pytest.mark.parametrize(("form", "fields"), ROWS)
def test_and_of_no_use_where_not(form: str, fields: dict[str, Any]) -> None:
    missing = {"completion": "", "output": ""} | fields  # a column that is not there at all is an error
    row = canonical(Raw("a:1", missing), form, {})
    assert isinstance(row, Dropped)
    assert row.reason == "no answer"


def test_answers_that_are_there_stay() -> None:
    for fields in (
        {"prompt": "Why?", "completion": "So."},
        {"messages": [ASKED, {"role": "assistant", "content": "So."}]},
    ):
        form = detect(fields, {}, "causal_lm", answered=False)
        assert canonical(Raw("a:1", fields), form, {}, answered=False) == canonical(
            Raw("a:1", fields), form, {}
        )


@pytest.mark.parametrize(
    "turns", [[], None, [{"role": "system", "content": "x"}], [ASKED, {"role": "assistant", "content": " "}]]
)
def test_a_conversation_in_which_nobody_asks_last_is_dropped(turns: Any) -> None:
    assert isinstance(canonical(Raw("a:1", {"messages": turns}), "messages", {}, answered=False), Dropped)


def test_two_questions_are_two_rows() -> None:
    """Compared by all but their last turn, all questions under one system message would be one."""
    rows = [
        {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": text}]}
        for text in ("a", "b")
    ]
    assert content_key(rows[0]) != content_key(rows[1])  # type: ignore[arg-type]


def test_labels_may_be_missing_in_some_rows_or_in_all() -> None:
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": ""}, {"text": "c"}]
    found = [canonical(Raw("a:1", row), "labelled", {}, answered=False) for row in rows]
    assert [None if isinstance(row, Dropped) else row.get("label", "none") for row in found] == [
        "x",
        "none",
        "none",
    ]


def test_a_conversation_that_begins_with_its_answer_asks_nobody_anything() -> None:
    """An API was asked with no message, or with the system's alone; who needs nobody's answer may learn from such a row."""
    said = {"role": "assistant", "content": "So."}
    for before in ([], [{"role": "system", "content": "Be brief."}]):
        raw = Raw("a:1", {"messages": [*before, said]})
        assert canonical(raw, "messages", {}, answered=False) == Dropped("a:1", "nobody asks")
        assert isinstance(canonical(raw, "messages", {}), dict)
