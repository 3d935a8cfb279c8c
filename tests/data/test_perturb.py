"""Changed rows: the same for the same seed, never without their answer, and never another row's."""

import pytest

from stillhouse.data.formats import Row
from stillhouse.data.perturb import KINDS, perturbed, swapped

ROWS: list[Row] = [
    {
        "id": "a",
        "where": "f:1",
        "text": "He said the quiet river would never keep his secret",
        "label": "good",
    },
    {"id": "b", "where": "f:2", "text": "nothing here", "label": "bad"},
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_follows_from_seed_and_row_and_keeps_id_and_label(kind: str) -> None:
    one, again, other = (perturbed(ROWS, [kind], seed)[f"eval_{kind}"] for seed in (1, 1, 2))
    assert one == again
    assert [row["id"] for row in one] == ["a", "b"]
    assert [row["label"] for row in one] == ["good", "bad"]
    assert perturbed(list(reversed(ROWS)), [kind], 1)[f"eval_{kind}"] == list(reversed(one))
    assert all(row["text"].strip() for row in [*one, *other])
    assert one[0]["text"] != ROWS[0]["text"] or other[0]["text"] != ROWS[0]["text"]


def test_only_the_question_is_changed_and_never_the_answer() -> None:
    row: Row = {"id": "c", "where": "f:3", "messages": [
        {"role": "system", "content": "be kind"}, {"role": "user", "content": "why"}, {"role": "assistant", "content": "so"},
    ]}  # fmt: skip
    after = perturbed([row], ["capitals"], 0)["eval_capitals"][0]
    assert [turn["content"] for turn in after["messages"]] == ["be kind", "WHY", "so"]
    pair: Row = {"id": "d", "where": "f:4", "prompt": "one two", "completion": " three"}
    assert perturbed([pair], ["longer"], 0)["eval_longer"][0] == {**pair, "prompt": "one two one two"}


def test_terms_are_swapped_both_ways_as_whole_words_in_their_case() -> None:
    row: Row = {"id": "e", "where": "f:5", "text": "He met her; SHE left, the others stayed", "label": "x"}
    assert swapped([row, ROWS[1]], [["he", "she"]]) == [
        {**row, "text": "She met her; HE left, the others stayed"}
    ]
