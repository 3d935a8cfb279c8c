"""Which rows are shown: some of every kind, and what is said of them is what the models said."""

import numpy as np

import tiny
from stillhouse.data.encode import Example
from stillhouse.measure import classification_rows
from stillhouse.samples import KINDS, classified, furthest_apart
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
