"""Metrics of written answers against sacrebleu and rouge-score, and against hand counts."""

import numpy as np
import pytest
import sacrebleu

from stillhouse.answers import bleu_rows, passed, rouge_rows
from stillhouse.errors import DataError
from stillhouse.measure import ANSWER_METRICS, evaluate
from stillhouse.measure.text import chrf_rows, match_rows

WORDS = [
    "the",
    "old",
    "river",
    "keeps",
    "a",
    "small",
    "red",
    "book,",
    "near",
    "the",
    "house;",
    "it",
    "never",
    "reads",
    "well.",
    "12",
    "+",
    "3",
    "=",
    "15",
]


def pairs(seed: int, count: int = 30) -> tuple[list[str], list[str]]:
    """References, and answers that share many of their words; one answer is empty."""
    generator = np.random.default_rng(seed)
    references = [" ".join(generator.choice(WORDS, 12)) for _ in range(count)]
    answers = [
        " ".join(word if generator.random() < 0.8 else str(generator.choice(WORDS)) for word in text.split())
        for text in references
    ]
    return ["", *answers[1:]], references


@pytest.mark.parametrize("seed", range(3))
def test_bleu_is_that_of_sacrebleu(seed: int) -> None:
    answers, references = pairs(seed)
    expected = sacrebleu.corpus_bleu(answers, [references]).score
    assert evaluate(ANSWER_METRICS["bleu"], bleu_rows(answers, references)) == pytest.approx(
        expected, abs=1e-9
    )


def test_bleu_without_long_matches_is_smoothed_as_in_sacrebleu() -> None:
    answers, references = ["a b c d e f", "x y z w v u"], ["a b q d r f", "x q z q v q"]
    expected = sacrebleu.corpus_bleu(answers, [references]).score
    assert evaluate(ANSWER_METRICS["bleu"], bleu_rows(answers, references)) == pytest.approx(
        expected, abs=1e-9
    )


@pytest.mark.parametrize("seed", range(3))
def test_chrf_is_that_of_sacrebleu(seed: int) -> None:
    answers, references = pairs(seed)
    expected = sacrebleu.corpus_chrf(answers, [references]).score
    assert evaluate(ANSWER_METRICS["chrf"], chrf_rows(answers, references)) == pytest.approx(
        expected, abs=1e-9
    )


def test_chrf_of_short_answers_is_that_of_sacrebleu() -> None:
    answers, references = ["ab", "x"], ["abc", "xy"]
    expected = sacrebleu.corpus_chrf(answers, [references]).score
    assert evaluate(ANSWER_METRICS["chrf"], chrf_rows(answers, references)) == pytest.approx(
        expected, abs=1e-9
    )


def test_rouge_is_the_mean_of_rouge_score() -> None:
    from rouge_score import rouge_scorer

    answers, references = pairs(5)
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    expected = np.mean(
        [scorer.score(r, a)["rougeL"].fmeasure for a, r in zip(answers, references, strict=True)]
    )
    rows = rouge_rows(answers, references) | {"answers": np.ones(30)}
    assert evaluate(ANSWER_METRICS["rougeL"], rows) == pytest.approx(expected, abs=1e-9)


def test_exact_match_and_f1_by_hand() -> None:
    rows = match_rows(["The cat!", "a red house", ""], ["cat", "red old house", "x"])
    assert rows["exact"].tolist() == [1.0, 0.0, 0.0]
    assert rows["f1"] == pytest.approx([1.0, 0.8, 0.0])


def test_a_checker_is_asked_row_by_row(tmp_path, monkeypatch) -> None:
    (tmp_path / "my_checker.py").write_text(
        "def right(answer, row):\n    return answer.strip() == row['completion'].strip()\n"
        "def bad(answer, row):\n    return row['nothing']\n"
        "def wild(answer, row):\n    return 7\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = [{"where": f"f:{n}", "completion": str(n)} for n in (1, 2)]
    assert passed("my_checker:right", ["1 ", "3"], rows).tolist() == [1.0, 0.0]
    for name, hint in (("bad", "fails on f:1: KeyError"), ("wild", "says 7.0 of f:1")):
        with pytest.raises(DataError, match=hint):
            passed(f"my_checker:{name}", ["1"], rows[:1])
