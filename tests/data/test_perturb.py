"""Changed rows: the same for the same seed, never without their answer, and never another row's."""

import numpy as np
import pytest

import tiny
from stillhouse.data import perturb
from stillhouse.data.encode import IGNORED, encode_completion, runs
from stillhouse.data.formats import Row, with_id
from stillhouse.data.perturb import (
    CHANGES,
    asked_texts,
    halves,
    in_pieces,
    perturbed,
    reworded,
    swapped,
    wholes,
)

ROWS: list[Row] = [
    {
        "id": "a",
        "where": "f:1",
        "text": "He said the quiet river would never keep his secret",
        "label": "good",
    },
    {"id": "b", "where": "f:2", "text": "nothing here", "label": "bad"},
]


@pytest.mark.parametrize("kind", CHANGES)
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


def texts(count: int) -> list[Row]:
    lines = tiny.sentences(3 * count, seed=4)
    return [
        with_id({"where": f"t:{n}", "text": " ".join(lines[3 * n : 3 * n + 1 + n % 3])}) for n in range(count)
    ]


@pytest.mark.parametrize("kind", CHANGES)
def test_of_a_plain_text_only_the_first_half_is_changed_and_only_the_second_is_counted(kind: str) -> None:
    tokenizer, rows = tiny.language_tokenizer(), texts(12)
    clean = halves(in_pieces(rows, lambda text: [text]))
    changed = perturbed(clean, [kind], 0)[f"eval_{kind}"]
    assert [row["id"] for row in changed] == [row["id"] for row in clean]
    assert [one["prompt"] for one in changed] != [one["prompt"] for one in clean]
    for row, one, other in zip(rows, clean, changed, strict=True):
        assert one["prompt"] + one["completion"] == row["text"]
        assert abs(len(one["prompt"]) - len(one["completion"])) < 20
        counted = []
        for each in (one, other):
            example = encode_completion(dict(each), tokenizer, 512)
            assert not isinstance(example, str)
            counted.append([label for label in example.labels if label != IGNORED])
        assert counted[0] == counted[1]
        assert tokenizer.decode(counted[0]) == one["completion"], "no end is counted, for a piece has none"


def test_of_a_whole_text_all_is_counted_but_what_nothing_predicts() -> None:
    tokenizer = tiny.language_tokenizer()
    row = texts(1)[0]
    (whole,) = wholes([row])
    example = encode_completion(dict(whole), tokenizer, 512)
    assert not isinstance(example, str)
    assert example.labels[0] == IGNORED and IGNORED not in example.labels[1:]
    assert tokenizer.decode(example.input_ids) == row["text"]


def test_a_text_is_cut_into_pieces_of_so_many_tokens_and_nothing_of_it_is_lost() -> None:
    tokenizer = tiny.language_tokenizer()
    text = " ".join(tiny.sentences(9)) + " naïve 東京 \n\n end"
    pieces = runs(text, tokenizer, 16)
    assert "".join(pieces) == text and len(pieces) > 4
    assert all(len(tokenizer(piece)["input_ids"]) <= 17 for piece in pieces)
    rows = in_pieces([with_id({"where": "f:1", "text": text})], lambda text: runs(text, tokenizer, 16))
    assert len({row["group"] for row in rows}) == 1 and len({row["id"] for row in rows}) == len(rows)


def test_a_text_of_one_word_is_not_halved_into_nothing() -> None:
    assert halves([with_id({"where": "f:1", "text": "a"})]) == []
    (row,) = halves([with_id({"where": "f:1", "text": "東京大学"})])
    assert (row["prompt"], row["completion"]) == ("東京", "大学")


def test_what_is_asked_can_be_put_in_other_words_and_the_rest_stays() -> None:
    row: Row = {"id": "c", "where": "f:3", "messages": [
        {"role": "system", "content": "be kind"}, {"role": "user", "content": "why"}, {"role": "assistant", "content": "so"},
    ]}  # fmt: skip
    assert asked_texts(row) == ["why"]
    assert [turn["content"] for turn in reworded(row, ["how come"])["messages"]] == [
        "be kind",
        "how come",
        "so",
    ]
    pair: Row = {"id": "d", "where": "f:4", "text": "one", "pair": "two", "label": "x"}
    assert reworded(pair, [text * 2 for text in asked_texts(pair)]) == {
        **pair,
        "text": "oneone",
        "pair": "twotwo",
    }


def test_a_fourth_typo_is_the_key_beside_the_letter_in_its_case():
    keyboard = {"H": set("GJ"), "o": set("ip"), "p": set("o"), "a": set("s"), "é": set("é"), "m": set("n")}
    for letter, near in keyboard.items():
        assert {perturb._beside(letter, np.random.default_rng(seed)) for seed in range(30)} == near
    said = {perturb.typos("word", np.random.default_rng(seed), 1.0, ways=4) for seed in range(200)}
    swapped, doubled, dropped = {"wrod", "wodr"}, {"woord", "worrd"}, {"wrd", "wod"}
    assert said == swapped | doubled | dropped | {"wird", "wprd", "woed", "wotd"}
    held_out = {perturb.typos("word", np.random.default_rng(seed), 1.0) for seed in range(200)}
    assert held_out == swapped | doubled | dropped
