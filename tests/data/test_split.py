"""Sets of rows: nothing of the test is learned from, and every row is accounted for."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stillhouse.data.split import content_key, in_order, prepare
from stillhouse.errors import DataError, RecipeError
from stillhouse.recipe.data import Also, Data


def run(folder: Path, sets: dict, task: str = "classification", seed: int = 0, also=(), **data):
    """`prepare` on rows given by set name; settings of a set stand under its name in `data`."""
    paths = {}
    for name, rows in sets.items():
        paths[name] = folder / (f"{name}.txt" if isinstance(rows, str) else f"{name}.jsonl")
        text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
        paths[name].write_text(text, encoding="utf-8")
        if name in ("train", "eval", "unlabelled"):
            data[name] = {"source": "x", **data.get(name, {})}
    others = [Also(source="x", **settings) for settings in also]
    return prepare(Data.model_validate(data), others, task, seed, paths)


def reviews(count: int, start: int = 0) -> list[dict]:
    return [{"text": f"review number {n}", "label": n % 2} for n in range(start, start + count)]


def balanced(prepared) -> bool:
    """Each set: read + added == kept + held_out + dropped, and each dropped row has a place and a reason."""
    assert all(row["where"] and row["reason"] for row in prepared.dropped)
    for name, found in prepared.counts.items():
        dropped = [row for row in prepared.dropped if row["set"] == name]
        assert len(dropped) == sum(found["dropped"].values())
        assert found["read"] + found["added"] == found["kept"] + found["held_out"] + len(dropped)
    json.dumps(prepared.counts, allow_nan=False)
    return True


def texts(rows) -> set[str]:
    return {row["text"] for row in rows}


@pytest.mark.parametrize(("split", "held"), [(0.1, 10), (0.25, 25), (7, 7), (0.001, 1), (99, 99)])
def test_the_share_or_number_asked_for_is_held_out(tmp_path, split, held):
    found = run(tmp_path, {"train": reviews(100)}, split=split)
    assert (len(found.eval), len(found.train)) == (held, 100 - held)
    assert not texts(found.train) & texts(found.eval) and balanced(found)


def test_the_order_of_the_file_moves_no_row_and_the_seed_does(tmp_path):
    rows = reviews(200)
    first, again = (run(tmp_path, {"train": some}) for some in (rows, rows[::-1]))
    assert [row["id"] for row in first.train] == [row["id"] for row in again.train]
    assert [row["id"] for row in first.eval] == [row["id"] for row in again.eval]
    assert texts(run(tmp_path, {"train": rows}, seed=1).eval) != texts(first.eval)


@pytest.mark.parametrize("more", [1, 10, 100])
def test_added_rows_move_others_only_to_make_room(tmp_path, more):
    """A split by hash, not by position: old rows leave the test only one for one with new rows in it, none enters."""
    old, new = reviews(300), reviews(more, start=300)
    before = texts(run(tmp_path, {"train": old}, split=30).eval)
    after = texts(run(tmp_path, {"train": new + old}, split=30).eval)
    assert not (after & texts(old)) - before
    assert len(before - after) == len(after & texts(new))


def test_rows_that_share_content_are_on_one_side_whatever_file_they_are_added_to(tmp_path):
    prompts = [{"prompt": f"Question {n}?", "completion": f"answer {k}"} for n in range(40) for k in range(5)]
    spelt = [{**row, "prompt": row["prompt"].upper() + " "} for row in prompts]
    found = run(tmp_path, {"train": prompts + spelt}, task="causal_lm")
    assert not {content_key(row) for row in found.train} & {content_key(row) for row in found.eval}
    assert found.counts["train"]["dropped"] == {} and len(found.eval) == 40


def test_groups_never_straddle_the_split(tmp_path):
    rows = [{**row, "author": n % 17} for n, row in enumerate(reviews(170))]
    found = run(tmp_path, {"train": rows}, split=0.3, group="author")
    sides = [{row["group"] for row in side} for side in (found.train, found.eval)]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 17
    assert len(found.eval) == 60  # the first whole number of groups that reaches 51


def test_sentences_of_one_document_never_straddle_the_split(tmp_path):
    rows = [
        {"text": " ".join(f"This is sentence {k} of document {n}." for k in range(6)), "label": 1}
        for n in range(50)
    ]
    found = run(tmp_path, {"train": [*rows, {"text": "Too short.", "label": 1}]}, train={"sentences": True})
    assert len(found.train) + len(found.eval) == 300
    assert not {row["group"] for row in found.train} & {row["group"] for row in found.eval}
    assert found.counts["train"]["dropped"] == {"no sentence of 5 to 60 words": 1} and balanced(found)
    assert all("#" in row["where"] for row in found.train)


def test_a_sentence_of_two_documents_is_on_the_same_side_in_either_order(tmp_path):
    rows = [
        {"text": f"Everybody in town says this. This is only in document {n}.", "label": 1} for n in range(40)
    ]
    sides = [
        texts(run(tmp_path, {"train": some}, train={"sentences": True}).eval) for some in (rows, rows[::-1])
    ]
    assert sides[0] == sides[1]


def test_duplicates_and_contradictions_within_a_set_are_dropped_and_counted(tmp_path):
    rows = [*reviews(20), reviews(1)[0], {"text": "Review  NUMBER 3", "label": 0}]
    found = run(tmp_path, {"train": rows})
    assert found.counts["train"]["dropped"] == {"duplicate": 1, "same text, other label": 1}
    assert {row["where"] for row in found.dropped} == {"train.jsonl:21", "train.jsonl:22"} and balanced(found)


def test_train_and_unlabelled_lose_what_is_measured_on_whatever_its_case_or_label(tmp_path):
    loud = [{"text": row["text"].upper() + "\n", "label": 1 - row["label"]} for row in reviews(40)]
    sets = {"train": loud, "eval": reviews(5), "books": reviews(7), "unlabelled": loud[:30] + reviews(20, 90)}
    found = run(tmp_path, sets, also=[{"name": "books"}])
    assert found.counts["train"]["dropped"] == {"also in eval": 5, "also in books": 2}
    assert found.counts["train"]["overlap"] == {"eval": 5, "books": 7}
    assert found.counts["unlabelled"]["dropped"] == {
        "also in eval": 5,
        "also in books": 2,
        "also in train": 23,
    }
    assert len(found.unlabelled) == 20 and not any("label" in row for row in found.unlabelled)
    assert balanced(found)


def test_every_row_is_counted_with_filters_limits_and_rows_of_no_use(tmp_path):
    rows = [{**row, "source": "a" if n % 3 else "b"} for n, row in enumerate(reviews(300))]
    rows += [{"text": "", "label": 1, "source": "a"}, {"text": "x", "label": None, "source": "a"}, rows[1]]
    sets = {"train": rows, "books": rows}
    also = [{"name": "books", "where": {"source": "b"}, "limit": 9}]
    found = run(tmp_path, sets, also=also, train={"where": {"source": "a"}, "limit": 50}, split=20)
    assert found.counts["train"]["dropped"] == {
        "limit": 130,
        "where": 100,
        "duplicate": 1,
        "empty text": 1,
        "no label": 1,
    }
    assert (len(found.train), len(found.eval), len(found.also["books"])) == (50, 20, 9) and balanced(found)


def test_a_limit_takes_the_first_rows_of_the_seeded_order(tmp_path):
    few, all_of_them = (run(tmp_path, {"train": reviews(100)}, train={"limit": n}) for n in (10, 1000))
    assert few.train == all_of_them.train[:10] and few.eval == all_of_them.eval


@pytest.mark.parametrize(
    ("value", "wanted"),
    [("1", 1), (1, "1"), (1.0, 1), (True, True), ("True", True), (True, "true"), ("a", "a")],
)
def test_where_finds_a_value_as_text_and_as_what_it_is(tmp_path, value, wanted):
    rows = [{**row, "kind": value if n % 2 else "other"} for n, row in enumerate(reviews(40))]
    found = run(tmp_path, {"train": rows}, train={"where": {"kind": wanted}})
    assert found.counts["train"]["dropped"] == {"where": 20}


def test_one_long_document_is_cut_into_blocks_to_be_split(tmp_path):
    text = "\n\n".join(f"Paragraph {n}. " + "word " * 100 for n in range(20))
    found = run(tmp_path, {"train": text}, task="causal_lm")
    assert found.eval and found.train and balanced(found)
    assert sum(len(row["text"].split()) for row in (*found.train, *found.eval)) == len(text.split())
    assert all(row["where"].startswith("train.txt#") and "group" not in row for row in found.train)


def test_short_documents_stay_whole_and_long_ones_are_always_cut(tmp_path):
    rows = [{"text": f"document {n} " + "word " * 100} for n in range(10)] + [{"text": "word " * 5000}]
    wheres = [
        row["where"] for row in run(tmp_path, {"train": rows, "eval": rows[:1]}, task="causal_lm").train
    ]
    assert sum("#" not in where for where in wheres) == 9
    assert {where.partition("#")[0] for where in wheres if "#" in where} == {"train.jsonl:11"}


def test_rows_that_all_answer_one_prompt_are_told_apart_by_their_answers(tmp_path):
    rows = [{"prompt": "Tell a story.", "completion": f"Story {n}."} for n in range(50)]
    found = run(tmp_path, {"train": rows}, task="causal_lm")
    assert (len(found.train), len(found.eval)) == (45, 5)


ERRORS = {
    "nothing to split": ({"sets": {"train": reviews(1)}}, DataError, "data.split: 0.1 of 1 rows in 1 groups"),
    "too much asked": ({"sets": {"train": reviews(9)}, "split": 9}, DataError, "data.split: 9 of 9 rows"),
    "one group": (
        {"sets": {"train": [{**row, "author": "me"} for row in reviews(9)]}, "group": "author"},
        DataError, "of 9 rows in 1 groups",
    ),
    "no such group": (
        {"sets": {"train": [{**row, "author": "me"} for row in reviews(9)]}, "group": "autor"},
        DataError, "train.jsonl:1: there is no column 'autor' for group; the columns are 'text', 'label', 'author'. Did",
    ),
    "all in eval": (
        {"sets": {"train": reviews(5), "eval": reviews(9)}}, DataError, "train: no row is left of 5 (5 also in eval)",
    ),
    "nothing usable": (
        {"sets": {"train": [{"text": "", "label": 1}] * 2}}, DataError, "train: no row is left of 2 (2 empty text)",
    ),
    "nothing wanted": (
        {"sets": {"train": reviews(5)}, "train": {"where": {"text": "review number 33"}}},
        DataError, "data.train.where: none of 5 rows has text: review number 33. Did you mean 'review number 3'?",
    ),
    "where on no column": (
        {"sets": {"train": reviews(5)}, "train": {"where": {"sauce": 1}}}, DataError, "no column 'sauce' for where",
    ),
    "format and task": (
        {"sets": {"train": reviews(5)}, "train": {"format": "alpaca"}}, RecipeError, "data.train.format: alpaca does not",
    ),
    "sentences of pairs": (
        {"sets": {"train": [{**row, "pair": "b"} for row in reviews(5)]}, "train": {"sentences": True}},
        RecipeError, "data.train.sentences: only rows of a single text",
    ),
    "a taken name": (
        {"sets": {"train": reviews(5)}, "also": [{"name": "unlabelled"}]}, RecipeError, "the name 'unlabelled' is that of",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_what_cannot_be_prepared_is_said_in_one_sentence(tmp_path, name):
    arguments, kind, sentence = ERRORS[name]
    with pytest.raises(kind) as error:
        run(tmp_path, **arguments)
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_an_order_is_a_permutation_that_depends_on_seed_and_purpose_only(tmp_path):
    rows = run(tmp_path, {"train": reviews(100)}).train
    order = in_order(rows, 3, "epoch", "1")
    assert order == in_order(rows[::-1], 3, "epoch", "1")
    assert sorted(row["id"] for row in order) == sorted(row["id"] for row in rows)
    assert order != in_order(rows, 4, "epoch", "1") and order != in_order(rows, 3, "epoch", "2")


def test_no_random_generator_is_touched(tmp_path):
    python, numpy = random.getstate(), np.random.get_state()
    run(tmp_path, {"train": reviews(50), "books": reviews(60)}, also=[{"name": "books", "limit": 55}])
    after = np.random.get_state()
    assert random.getstate() == python
    assert all(np.array_equal(one, other) for one, other in zip(numpy, after, strict=True))


def test_reading_data_imports_no_torch():
    code = "import sys, stillhouse.data.split; sys.exit(any(m in sys.modules for m in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ── rows set aside, and rows added ──────────────────────────────────────────────────────────────────────────────────


def test_rows_set_aside_are_neither_trained_on_nor_held_out_and_leave_the_held_out_rows_as_they_are(tmp_path):
    plain = run(tmp_path, {"train": reviews(100)}, split=0.2)
    found = run(tmp_path, {"train": reviews(100)}, split=0.2, validation=0.25)
    assert texts(found.eval) == texts(plain.eval)
    assert len(found.also["validation"]) == 20
    assert len(found.train) == 60
    assert texts(found.train) | texts(found.also["validation"]) == texts(plain.train)
    assert balanced(found)


def test_rows_set_aside_share_no_content_with_held_out_rows_of_a_file_of_their_own(tmp_path):
    held = [{"text": row["text"].upper(), "label": row["label"]} for row in reviews(30)]
    found = run(tmp_path, {"train": reviews(100), "eval": held}, validation=0.5)
    assert not {text.upper() for text in texts(found.also["validation"])} & texts(found.eval)
    assert balanced(found)


def test_extra_rows_are_learned_from_and_never_held_out_nor_learned_twice(tmp_path):
    paths = {name: tmp_path / f"{name}.jsonl" for name in ("train", "extra")}
    paths["train"].write_text("".join(json.dumps(row) + "\n" for row in reviews(50)))
    paths["extra"].write_text("".join(json.dumps(row) + "\n" for row in reviews(30, start=40)))
    data = Data.model_validate({"train": {"source": "x"}, "extra": {"source": "x"}, "split": 10})
    found = prepare(data, [], "classification", 0, paths)
    plain = prepare(data.model_copy(update={"extra": None}), [], "classification", 0, paths)
    assert texts(found.eval) == texts(plain.eval)
    assert texts(found.extra) == texts(reviews(20, start=50))
    assert balanced(found)


def test_an_unlabelled_row_that_is_an_extra_one_too_is_learned_once(tmp_path):
    sets = {"train": reviews(20), "extra": reviews(10, start=20)}
    paths = {name: tmp_path / f"{name}.jsonl" for name in (*sets, "unlabelled")}
    for name, rows in sets.items():
        paths[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    bare = [{"text": row["text"]} for row in reviews(10, start=25)]
    paths["unlabelled"].write_text("".join(json.dumps(row) + "\n" for row in bare))
    data = {"train": {"source": "x"}, "extra": {"source": "x"}, "unlabelled": {"source": "x"}, "split": 5}
    found = prepare(Data.model_validate(data), [], "classification", 0, paths)
    assert texts(found.unlabelled) == texts(reviews(5, start=30))
    assert found.counts["unlabelled"]["dropped"] == {"also in extra": 5}
    assert balanced(found)
