"""Raw rows to canonical rows: each format, and each way a row can be of no use or wrong."""

import math

import pytest

from stillhouse.data.detect import detect
from stillhouse.data.formats import Dropped, canonical
from stillhouse.data.load import Raw
from stillhouse.data.sentences import blocks, sentences
from stillhouse.errors import DataError

USER, ANSWER = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}
FORMATS = {
    "text": ({"text": "a"}, {"text": "a"}),
    "labelled": ({"text": "a", "pair": "b", "label": 1}, {"text": "a", "pair": "b", "label": "1"}),
    "messages": ({"messages": [USER, ANSWER]}, {"messages": [USER, ANSWER]}),
    "prompt_completion": ({"prompt": "a", "completion": " b"}, {"prompt": "a", "completion": " b"}),
    "alpaca": (
        {"instruction": "a", "input": "b", "output": "c", "text": "all of it", "system": "s"},
        {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "a\n\nb"},
                {"role": "assistant", "content": "c"},
            ]
        },
    ),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]},
        {"messages": [USER, ANSWER]},
    ),
}


def make(fields, format, columns=None, labelled=True, where="r.jsonl:7"):
    return canonical(Raw(where, fields), format, columns or {}, labelled)


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_is_detected_and_made_canonical(format):
    fields, expected = FORMATS[format]
    task = "classification" if format == "labelled" else "causal_lm"
    assert detect(fields, {}, task) == format
    row = make(fields, format)
    assert {key: row[key] for key in row if key not in ("id", "where")} == expected
    assert row["where"] == "r.jsonl:7" and len(row["id"]) == 16


@pytest.mark.parametrize("format", FORMATS)
def test_an_id_follows_from_the_content_and_not_from_the_place_or_the_group(format):
    fields, _ = FORMATS[format]
    here = make({**fields, "author": "x"}, format, {"group": "author"}, where="a:1")
    assert here["id"] == make(fields, format, where="b.csv:99")["id"]
    assert here["group"] == "x"


def test_ids_differ_if_the_label_or_the_side_of_a_pair_differs():
    rows = [
        {"text": "a", "label": "1"},
        {"text": "a", "label": "2"},
        {"text": "a", "pair": "a", "label": "1"},
    ]
    assert len({make(row, "labelled")["id"] for row in rows}) == 3


def test_what_the_user_maps_wins_over_what_columns_are_called():
    both = {"instruction": "a", "output": "b", "body": "c"}
    assert detect(both, {}, "causal_lm") == "alpaca"
    assert detect(both, {"text": "body"}, "causal_lm") == "text"
    assert make(both, "text", {"text": "body"})["text"] == "c"
    assert detect({"q": "", "a": ""}, {"prompt": "q", "completion": "a"}, "causal_lm") == "prompt_completion"


@pytest.mark.parametrize("task", ["classification", "masked_lm", "seq2seq", "causal_lm"])
def test_a_column_that_is_mapped_and_not_there_is_named(task):
    ours = {"seq2seq": "prompt", "causal_lm": "prompt"}.get(task, "text")
    columns = {ours: "questoin", "completion": "answer"}
    fields = {"question": "a", "answer": "b"}

    def read():
        return canonical(Raw("x:1", fields), detect(fields, columns, task), columns)

    with pytest.raises(DataError, match=rf"no column 'questoin' for {ours};.*Did you mean 'question'"):
        read()


@pytest.mark.parametrize("column", ["messages", "conversations", "chat"])
@pytest.mark.parametrize("format", ["messages", "sharegpt"])
def test_turns_are_told_apart_by_their_keys_and_not_by_their_column(column, format):
    turns = next(iter(FORMATS[format][0].values()))
    columns = {"messages": "chat"} if column == "chat" else {}
    assert detect({column: turns}, columns, "causal_lm") == format
    assert make({column: turns}, format, columns)["messages"] == [USER, ANSWER]


@pytest.mark.parametrize(
    ("value", "label"), [(1, "1"), (1.0, "1"), (True, "True"), (" pos ", "pos"), (0, "0"), (-0.0, "0")]
)
def test_one_label_has_one_spelling(value, label):
    assert make({"text": "a", "label": value}, "labelled")["label"] == label


DROPPED = [
    ("text", {"text": " \n"}, "empty text"),
    ("text", {"text": None}, "empty text"),
    ("labelled", {"text": math.nan, "label": 1}, "empty text"),
    ("labelled", {"text": "a", "label": None}, "no label"),
    ("labelled", {"text": "a", "label": " "}, "no label"),
    ("labelled", {"text": "a", "label": math.nan}, "no label"),
    ("labelled", {"text": "a", "label": "1", "pair": ""}, "empty pair"),
    ("prompt_completion", {"prompt": "a", "completion": " "}, "no answer"),
    ("prompt_completion", {"prompt": "", "completion": "b"}, "empty prompt"),
    ("alpaca", {"instruction": "", "output": "b"}, "empty prompt"),
    ("alpaca", {"instruction": "a", "output": ""}, "no answer"),
    ("messages", {"messages": [USER]}, "no answer"),
    ("messages", {"messages": []}, "no answer"),
    ("messages", {"messages": None}, "no answer"),
    ("messages", {"messages": [USER, {"role": "assistant", "content": " "}]}, "no answer"),
    (
        "messages",
        {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{}]}]},
        "tool calls",
    ),
    ("sharegpt", {"conversations": [{"from": "human", "value": "a"}]}, "no answer"),
]


@pytest.mark.parametrize(("format", "fields", "reason"), DROPPED)
def test_a_row_of_no_use_is_dropped_with_its_reason(format, fields, reason):
    assert make(fields, format) == Dropped("r.jsonl:7", reason)


WRONG = [
    ("text", {"txet": "a"}, "no column 'text' for text; the columns are 'txet'. Did you mean 'txet'?"),
    ("labelled", {"text": "a", "labels": 1}, "no column 'label' for label"),
    ("text", {"text": 5}, "text must be text, not int (5)"),
    ("labelled", {"text": "a", "label": 0.5}, "label is 0.5; a label must be text, a whole number"),
    ("labelled", {"text": "a", "label": math.inf}, "a label must be"),
    ("labelled", {"text": "a", "label": ["x", "y"]}, 'label is ["x", "y"]'),
    ("messages", {"messages": "hi"}, "messages must be a list of {role, content}, not str"),
    ("messages", {"messages": [USER, {"role": "bot", "content": "a"}]}, "messages[1]: role is 'bot'"),
    ("messages", {"messages": [{"role": "user"}, ANSWER]}, "messages[0] must be an object with 'role' and"),
    (
        "messages",
        {"messages": [{"role": "user", "content": None}, ANSWER]},
        "messages[0].content must be text",
    ),
    (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "image"}]}, ANSWER]},
        "images and sound",
    ),
    (
        "sharegpt",
        {"conversations": [{"from": "ape", "value": "a"}]},
        "from is 'ape'; it must be one of system",
    ),
]


@pytest.mark.parametrize(("format", "fields", "sentence"), WRONG)
def test_a_wrong_row_stops_the_run_with_its_place_and_field(format, fields, sentence):
    with pytest.raises(DataError) as error:
        make(fields, format)
    assert str(error.value).startswith("r.jsonl:7: ") and sentence in str(error.value)


def test_a_mapped_column_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(
        DataError, match="no column 'revew' for text; the columns are 'review', 'stars'. Did you mean"
    ):
        make({"review": "a", "stars": 1}, "labelled", {"text": "revew"})


@pytest.mark.parametrize("task", ["causal_lm", "classification"])
def test_columns_that_fit_no_format_are_listed_with_the_way_to_map_them(task):
    with pytest.raises(DataError) as error:
        detect({"body": "a", "stars": 1}, {}, task, "r.csv:2", "data.eval")
    said = str(error.value)
    assert said.startswith("r.csv:2: the columns 'body', 'stars'") and "data.eval.columns: {text: ..." in said


def test_an_unlabelled_set_never_shows_its_labels():
    assert "label" not in make({"text": "a", "label": "1"}, "labelled", labelled=False)
    assert "label" not in make({"text": "a"}, "labelled", labelled=False)


def test_parts_of_text_are_joined():
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    assert make({"messages": [{"role": "user", "content": parts}, ANSWER]}, "messages")["messages"][0] == USER


def test_sentences_end_before_a_capital_or_a_quote_and_have_5_to_60_words():
    long = " ".join(["Word"] * 61) + "."
    text = f'It cost 3.5 dollars e.g. on Monday.<br /><br />Too short. "Really,  he\nsaid so?" "Yes, he did say so." {long}'
    assert sentences(text) == ["It cost 3.5 dollars e.g. on Monday.", '"Yes, he did say so."']
    assert sentences(" ".join(["word"] * 60)) and not sentences("")


@pytest.mark.parametrize("size", [7, 50, 2000])
def test_blocks_lose_nothing_but_whitespace_and_keep_their_size(size):
    text = (
        "\n\n".join(f"{n} " + "word " * (n % 40) + "x" * (n % 90) for n in range(300))
        + "\n \n\n"
        + "y" * 5000
    )
    cut = blocks(text, size)
    assert "".join("".join(cut).split()) == "".join(text.split())
    assert all(0 < len(block) <= size for block in cut)
    assert not blocks(" \n\n ")


def test_blocks_end_where_paragraphs_end_if_they_fit():
    assert blocks("aa\n\nbb\n\ncc", 6) == ["aa\n\nbb", "cc"]
