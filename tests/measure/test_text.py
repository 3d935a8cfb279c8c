"""Metrics of written answers against sacrebleu and rouge-score, and against hand counts."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

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


STAND_IN = """
class Sums:
    def __init__(self, size, seed):
        draws = [(seed + 7 * number, 3 * number) for number in range(size)]
        self.entries = [
            {"question": f"State the result: {a} + {b} =", "answer": str(a + b), "metadata": {}} for a, b in draws
        ]
    def __iter__(self):
        return iter(self.entries)
    def score_answer(self, answer, entry):
        oracle = entry["answer"]
        return 1.0 if answer == oracle else len(oracle) / len(answer) if answer and oracle in answer else 0.0

def create_dataset(name, size, seed):
    return Sums(size, seed)
"""
"""Of reasoning_gym, where it is not installed: what its own `create_dataset` and `score_answer` do for sums."""


def test_the_documented_checker_of_reasoning_gym_writes_rows_and_scores_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file in docs/evidence.md as it stands there, with the real package if it can be imported."""
    docs = (Path(__file__).parents[2] / "docs" / "evidence.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(import json.*?)```", docs, re.DOTALL)
    assert code is not None
    (tmp_path / "gym_checker.py").write_text(code[1], encoding="utf-8")
    if importlib.util.find_spec("reasoning_gym") is None:
        (tmp_path / "reasoning_gym.py").write_text(STAND_IN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", ":".join(path for path in sys.path if path))
    said = subprocess.run(
        [sys.executable, str(tmp_path / "gym_checker.py")], capture_output=True, text=True, check=True
    )
    rows = [
        {**json.loads(line), "where": f"sums:{number}"}
        for number, line in enumerate(said.stdout.splitlines())
    ]
    assert len(rows) > 400 and set(rows[0]) == {"prompt", "completion", "where"}
    right = [f" {row['completion']}\n" for row in rows[:20]]
    assert passed("gym_checker:right", right, rows[:20]).tolist() == [1.0] * 20
    wrong = [f"{int(row['completion']) + 1}" for row in rows[:20]]
    assert passed("gym_checker:right", wrong, rows[:20]).max() < 1.0
    assert passed("gym_checker:right", [""], rows[:1]).tolist() == [0.0]
