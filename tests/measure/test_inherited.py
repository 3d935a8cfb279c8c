"""Is a planted fault of the teacher found in its student, and does a clean teacher raise no alarm?"""

from itertools import pairwise
from math import comb
from typing import Any

import numpy as np
import pytest

from stillhouse.evidence import _slices, evidence
from stillhouse.kept import RowIndex
from stillhouse.measure import (
    CLASSIFICATION_METRICS,
    Share,
    alarms,
    classification_rows,
    gap_facts,
    gap_rows,
    group_values,
    words_of_errors,
)
from stillhouse.measure.inherited import upper_tail

ROWS, SEEDS = 600, 20


def shares_of(answers: Any) -> Any:
    """Sure probabilities [N, 2] of the given answers."""
    return np.where(np.eye(2)[answers] > 0, 0.9, 0.1)


def imitate(generator: Any, labels: Any, teacher: Any, share: float) -> Any:
    """Answers that are the teacher's on `share` of the rows, and on the others right in 85 of 100."""
    own = np.where(generator.random(len(labels)) < 0.85, labels, 1 - labels)
    return np.where(generator.random(len(labels)) < share, teacher, own)


def planted(seed: int, bias: float = 0.0, rule: bool = False) -> tuple[dict[str, Any], list[str], list[str]]:
    """Statistics of teacher, student and control, texts and dialects.

    bias: share of the rows of the dialect north that the teacher calls 0, whatever they say.
    rule: the teacher calls every text with the word "budget" 1.
    """
    generator = np.random.default_rng([5, seed])
    labels = generator.integers(0, 2, ROWS)
    dialect = np.where(generator.random(ROWS) < 0.3, "north", "south")
    words = [f"w{number}" for number in range(60)] + ["budget"]
    texts = [" ".join(generator.choice(words, 12)) for _ in range(ROWS)]
    teacher = np.where(generator.random(ROWS) < 0.92, labels, 1 - labels)
    teacher = np.where((dialect == "north") & (generator.random(ROWS) < bias), 0, teacher)
    if rule:
        teacher = np.where(["budget" in text.split() for text in texts], 1, teacher)
    answers = {
        "teacher": teacher,
        "student": imitate(generator, labels, teacher, 0.9),
        "hard_only": imitate(generator, labels, teacher, 0.0),
    }
    kept = {
        name: {"eval": classification_rows(shares_of(each), labels, shares_of(teacher))}
        for name, each in answers.items()
    }
    return kept, texts, dialect.tolist()


def found_in(seed: int, **fault: Any) -> dict[str, Any]:
    kept, texts, dialect = planted(seed, **fault)
    names = [f"r{number}" for number in range(ROWS)]
    labels = [str(label) for label in kept["teacher"]["eval"]["true"].argmax(1)]
    index = {"eval": RowIndex(names, names, names, [12] * ROWS, list(labels), {"dialect": dialect})}
    return evidence(
        kept, index, texts, ["0", "1"], CLASSIFICATION_METRICS["teacher_agreement"], CLASSIFICATION_METRICS["accuracy"],
        resamples=400, seed=seed,
    )  # fmt: skip


@pytest.fixture(scope="module")
def reports() -> dict[str, list[dict[str, Any]]]:
    faults: dict[str, dict[str, Any]] = {"clean": {}, "bias": {"bias": 0.5}, "rule": {"rule": True}}
    return {name: [found_in(seed, **fault) for seed in range(SEEDS)] for name, fault in faults.items()}


def alarmed(found: dict[str, Any]) -> list[str]:
    return [f"{gap['group']} {gap['metric']}" for gap in found["groups"]["eval"]["gaps"] if gap["alarm"]]


def test_a_group_bias_of_the_teacher_is_found_in_the_student_on_every_seed(reports: Any) -> None:
    assert all(
        "north accuracy" in alarmed(found) or "north rate_1" in alarmed(found) for found in reports["bias"]
    )


def test_a_wrong_rule_of_the_teacher_is_named_by_its_word_on_every_seed(reports: Any) -> None:
    for found in reports["rule"]:
        words = found["inheritance"]["eval"]["words"]
        assert [word["word"] for word in words][:1] == ["budget"]
        assert found["inheritance"]["eval"]["excess"]["better"] is False
        assert "they are inherited" in found["inheritance"]["eval"]["says"]


def test_a_clean_teacher_raises_no_alarm_on_any_seed(reports: Any) -> None:
    for found in reports["clean"]:
        assert not alarmed(found)
        assert not found["inheritance"]["eval"]["words"]


def test_no_evidence_is_said_only_where_the_test_had_the_power_to_see_it() -> None:
    def says(rows: int, share: float) -> str:
        generator = np.random.default_rng(8)
        labels = generator.integers(0, 2, rows)
        teacher = np.where(generator.random(rows) < 0.8, labels, 1 - labels)
        student, control = (imitate(generator, labels, teacher, share) for _ in range(2))
        names = [str(number) for number in range(rows)]
        index = {"eval": RowIndex(names, names, names, [1] * rows, ["x"] * rows)}
        kept = {
            name: {"eval": classification_rows(shares_of(each), labels, shares_of(teacher))}
            for name, each in {"teacher": teacher, "student": student, "hard_only": control}.items()
        }
        metrics = CLASSIFICATION_METRICS["teacher_agreement"], CLASSIFICATION_METRICS["accuracy"]
        found = evidence(kept, index, None, ["0", "1"], *metrics, resamples=400, seed=0)
        return str(found["inheritance"]["eval"]["says"])

    assert "no evidence" in says(6000, 0.0)
    assert "too few to tell" in says(120, 0.0)


def test_a_gap_is_the_difference_of_two_means() -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, 200)
    rows = classification_rows(shares_of(generator.integers(0, 2, 200)), labels)
    inside = generator.random(200) < 0.4
    units = gap_rows(rows, Share("accuracy", "accuracy", "correct", "texts", True), inside)
    facts = gap_facts({"teacher": units, "student": units}, resamples=200, seed=0)
    expected = rows["correct"][inside].mean() - rows["correct"][~inside].mean()
    assert facts["models"]["student"]["value"] == pytest.approx(expected, abs=1e-12)
    assert facts["drift"]["value"] == facts["growth"]["value"] == 0.0
    assert facts["inherited"] is None
    assert not alarms([facts])[0]["alarm"]


def test_groups_too_small_to_measure_are_left_out() -> None:
    values = ["a"] * 50 + ["b"] * 30 + ["c"] * 19 + [None] * 10
    assert group_values(values) == ["a", "b"]
    assert group_values(["a"] * 100) == []


@pytest.mark.parametrize(
    ("hits", "total", "marked", "drawn"), [(3, 20, 5, 8), (0, 20, 5, 8), (5, 20, 5, 8), (7, 30, 12, 10)]
)
def test_the_tail_is_the_hypergeometric_one(hits: int, total: int, marked: int, drawn: int) -> None:
    exact = sum(
        comb(marked, k) * comb(total - marked, drawn - k) for k in range(hits, min(marked, drawn) + 1)
    ) / comb(total, drawn)
    assert upper_tail(hits, total, marked, drawn) == pytest.approx(exact, rel=1e-9)


def test_a_word_in_most_rows_or_in_few_is_no_rule() -> None:
    texts = ["the rare"] * 5 + ["the end"] * 95
    assert words_of_errors(texts, np.array([True] * 5 + [False] * 95)) == []


def test_a_gap_that_teaching_has_narrowed_is_no_alarm():
    def gap(student, control, teacher):
        value = {"value": 0.1, "p": 0.0005}
        return {
            "models": {
                "student": {"value": student},
                "hard_only": {"value": control},
                "teacher": {"value": teacher},
            },
            "inherited": {**value, "value": student - control},
            "teacher_excess": {**value, "value": teacher - control},
        }

    narrowed, turned, passed_on = alarms(
        [gap(-0.03, -0.3, -0.02), gap(0.02, -0.3, 0.05), gap(-0.3, -0.02, -0.32)]
    )
    assert not narrowed["alarm"] and not turned["alarm"]
    assert passed_on["alarm"]


def by_length(tokens: list[int], labels: list[str | None]) -> list[list[int]]:
    """The tokens of the rows in each slice by length."""
    names = [str(number) for number in range(len(tokens))]
    index = RowIndex(names, names, names, tokens, labels)
    return [np.array(tokens)[inside].tolist() for by, _, inside in _slices(index) if by == "length"]


def test_rows_with_lengths_of_their_own_are_cut_by_length_with_a_label_or_without() -> None:
    tokens = np.random.default_rng(0).permutation(40).tolist()
    for labels in ([None] * 40, ["good"] * 40):
        quarters = by_length(tokens, list(labels))
        assert [len(each) for each in quarters] == [10, 10, 10, 10]
        assert all(max(one) < min(other) for one, other in pairwise(quarters))


def test_windows_of_packed_text_are_not_cut_by_length() -> None:
    """Most are whole, and the length of the others says where a text was cut."""
    assert by_length([48] * 21 + list(range(4, 23)), [None] * 40) == []
