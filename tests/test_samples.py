"""Which rows are shown: some of every kind, and what is said of them is what the models said."""

import numpy as np

import tiny
from stillhouse.data.encode import Example
from stillhouse.measure import classification_rows
from stillhouse.measure.text import match_rows
from stillhouse.samples import KINDS, answered, classified, furthest_apart
from stillhouse.tasks import make_task

LABELS = ["bad", "good"]


def shares(answers: list[int], sure: list[float]) -> np.ndarray:
    return np.array([[1 - s, s] if a else [s, 1 - s] for a, s in zip(answers, sure, strict=True)])


def rows(truth: list[int]) -> list[Example]:
    return [Example(str(n), f"row {n}", [1], [label], [0], 1) for n, label in enumerate(truth)]


TRUTH = [0, 0, 0, 0, 0, 0, 1, 1]
TEACHER = [0, 0, 1, 1, 0, 0, 1, 1]
STUDENT = [1, 1, 0, 1, 0, 0, 1, 1]
SURE = [0.6, 0.9, 0.7, 0.8, 0.7, 0.8, 0.9, 0.6]


def chosen(count: int, said: dict[str, str] | None = None) -> list[dict[str, object]]:
    teacher, student = shares(TEACHER, [0.8] * 8), shares(STUDENT, SURE)
    models = {
        "teacher": classification_rows(teacher, TRUTH, teacher),
        "student": classification_rows(student, TRUTH, teacher),
        "initial": classification_rows(student, TRUTH, teacher),
    }
    return classified(models, LABELS, rows(TRUTH), [f"text {n}" for n in range(8)], count, said or {})


def test_every_kind_of_row_is_shown_before_a_second_of_any() -> None:
    assert [row["kind"] for row in chosen(4)] == [kind for kind in KINDS if kind != "part"]


def test_all_rows_are_shown_where_there_is_room_and_those_come_first_that_are_furthest_apart() -> None:
    found = chosen(20)
    assert sorted(str(row["text"]) for row in found) == [f"text {n}" for n in range(8)]
    assert [row["text"] for row in found if row["kind"] == "student fails"] == ["text 1", "text 0"]


def test_an_answer_is_the_models_with_its_probability_and_the_untrained_student_is_spared() -> None:
    first = chosen(1)[0]
    assert first == {
        "text": "text 1", "label": "bad", "kind": "student fails", "teacher": "bad (0.80)", "student": "good (0.90)",
    }  # fmt: skip


def test_a_teacher_behind_an_api_is_shown_in_its_own_words() -> None:
    assert chosen(1, {"row 1": "certainly bad"})[0]["teacher"] == "certainly bad"


def test_rows_without_a_label_are_told_apart_by_agreement_alone() -> None:
    teacher, student = shares([0, 1], [0.8, 0.8]), shares([1, 1], [0.6, 0.6])
    models = {
        "teacher": classification_rows(teacher, [0, 0], teacher),
        "student": classification_rows(student, [0, 0], teacher),
    }
    found = classified(models, LABELS, rows([-100, -100]), ["a", "b"], 2)
    assert [(row["kind"], row["label"]) for row in found] == [("part", None), ("both right", None)]


def test_a_place_where_two_models_part_is_shown_with_what_stands_before_it() -> None:
    task = make_task("causal_lm", tiny.language_tokenizer(), 40)
    ids = [list(task.tokenizer(text)["input_ids"]) for text in ("the old river", "a red house near the book")]
    said, good, bad = ids[1], *(task.tokenizer(word)["input_ids"][0] for word in ("g", "b"))
    examples = [Example(str(n), str(n), some, [-100, *some[1:]], [0], 9) for n, some in enumerate(ids)]
    worst = np.array([[-1.0] * 6, [2.0, 3.5, good, bad, 0.9, 0.4]])
    assert furthest_apart({"worst": worst}, examples, task, 5) == [
        {
            "before": task.tokenizer.decode(said[:3]), "teacher": "g", "student": "b", "teacher_share": 0.9,
            "student_share": 0.4, "kl": 3.5,
        }
    ]  # fmt: skip
    assert furthest_apart({}, examples, task, 5) == []


def test_a_hidden_token_is_shown_with_what_stands_on_both_sides_of_it() -> None:
    task = make_task("masked_lm", tiny.encoder_tokenizer(), 40)
    ids = list(task.tokenizer("the old river")["input_ids"])
    example = Example("0", "0", ids, [-100, -100, ids[2], -100, -100], [0], 9)
    worst = np.array([[0.0, 3.5, ids[2], ids[1], 0.9, 0.4]])
    found = furthest_apart({"worst": worst}, [example], task, 5)
    assert [one["before"] for one in found] == ["[CLS] the ____ river [SEP]"]


def test_a_target_is_shown_behind_its_source() -> None:
    task = make_task("seq2seq", tiny.translator_tokenizer(), 40)
    row = {"id": "r", "where": "", "prompt": "the old house", "completion": "a red book"}
    examples = task.encode([row])[0] * 2
    worst = np.array([[place, 3.5, 3.0, 4.0, 0.9, 0.4] for place in (0.0, 2.0)])
    found = furthest_apart({"worst": worst}, examples, task, 5)
    assert [one["before"] for one in found] == ["the old house → ", "the old house → a red"]


REFERENCES = ["one", "two", "three", "four", "five"]
TAUGHT = ["one", "two", "no three", "no", "five"]
LEARNED = ["one", "no two", "three", "no", "never"]


def answers(checker: bool, references: list[str] = REFERENCES, count: int = 10) -> list[dict[str, object]]:
    written = {
        name: [
            {"row": str(n), "prompt": f"prompt {n}", "reference": reference, "answer": answer}
            for n, (reference, answer) in enumerate(zip(references, said, strict=True))
        ]
        for name, said in (("teacher", TAUGHT), ("student", LEARNED))
    }
    rows = {name: match_rows([one["answer"] for one in some], references) for name, some in written.items()}
    if checker:  # half marks are not right
        rows["teacher"]["passed"] = np.array([1.0, 0.5, 0.0, 1.0, 0.0])
        rows["student"]["passed"] = np.array([0.5, 1.0, 0.0, 1.0, 0.0])
    return answered(written, rows, count)


def test_answers_are_told_apart_by_who_gave_the_one_of_the_data() -> None:
    found = answers(checker=False)
    kinds = {str(row["prompt"]): row["kind"] for row in found}
    assert kinds == {
        "prompt 0": "both right", "prompt 1": "student fails", "prompt 2": "teacher fails", "prompt 3": "both fail",
        "prompt 4": "student fails",
    }  # fmt: skip
    assert [row["prompt"] for row in found][:2] == ["prompt 4", "prompt 1"], "no word right before one of two"
    assert found[0] == {
        "prompt": "prompt 4", "reference": "five", "teacher": "five", "student": "never", "kind": "student fails",
        "right": {"teacher": True, "student": False},
    }  # fmt: skip
    assert [row["kind"] for row in answers(checker=False, count=4)] == [k for k in KINDS if k != "part"]


def test_a_checker_has_the_last_word_on_who_was_right() -> None:
    kinds = {str(row["prompt"]): row["kind"] for row in answers(checker=True)}
    assert kinds == {
        "prompt 0": "student fails", "prompt 1": "teacher fails", "prompt 2": "both fail", "prompt 3": "both right",
        "prompt 4": "both fail",
    }  # fmt: skip


def test_where_nobody_ever_says_the_datas_words_nobody_is_called_wrong() -> None:
    """Free answers: a match would be luck, and "both fail" of every row a slander."""
    found = answers(checker=False, references=["a long free answer"] * 5, count=3)
    assert [row["prompt"] for row in found] == ["prompt 0", "prompt 1", "prompt 2"]
    assert all("kind" not in row and "right" not in row for row in found)
