"""What a teacher behind an API is surprised of in its own texts: of those alone on which the student counts the same bytes."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import AutoTokenizer

import tiny
from endpoint import Endpoint, Said
from partly import labelled
from steps.test_told import values
from stillhouse.asking import Answer
from stillhouse.blackbox import BlackBoxEvaluation
from stillhouse.data.encode import read_examples
from stillhouse.kept import RowIndex
from stillhouse.progress import Silent
from stillhouse.steps.surprise import keep_heard
from stillhouse.tasks import make_task

NATS = -math.log(0.5)


def letters(text: str) -> Answer:
    """Each letter a token, as probable as not."""
    return Answer("answered", text, tokens=tuple((letter, {letter: -NATS}) for letter in text))


def test_what_is_cut_counts_nothing_and_one_text_without_probabilities_leaves_all_unknown(
    tmp_path: Path,
) -> None:
    path, answers = tmp_path / "heard.safetensors", [letters("abc"), letters("abcdef"), letters("é")]
    keep_heard(path, answers, [True, False, True], str.encode)
    found = load_file(path)
    np.testing.assert_allclose(found["nll"], [3 * NATS, 0, NATS])
    np.testing.assert_array_equal(found["bytes"], [3, 0, 2])
    silent = Answer("answered", "abcdef")
    keep_heard(path, [letters("abc"), silent], [True, False], str.encode)
    assert load_file(path)["bytes"].tolist() == [3, 0], "what is not counted may be silent"
    keep_heard(path, [letters("abc"), silent], [True, True], str.encode)
    assert load_file(path) == {}


def test_answers_that_the_student_reads_in_part_or_behind_others_are_left_out_and_counted(
    tmp_path: Path,
) -> None:
    student = tiny.save_language_model(tmp_path / "student", layers=1)
    words = {"long": " the river reads a small book and the old house" * 3, "short": " a book"}

    def answer(body: dict[str, Any]) -> Said:
        text = words["long" if len(str(body["messages"])) % 2 else "short"]
        return text, [(letter, {letter: -NATS}) for letter in text]

    with Endpoint(answer) as endpoint:
        plain = values(tmp_path, endpoint.url, student, chats=False, rows=12, max_tokens=None)
        plain["objective"], plain["data"]["max_length"] = [{"kind": "hard"}], 40
        plain["data"] |= {"eval": None, "split": 10}
        found = labelled(plain, tmp_path / "run")
    examples = read_examples(tmp_path / "run" / "label" / "eval.parquet")
    whole = np.array([len(one.input_ids) < 40 for one in examples])
    assert 0 < whole.sum() < len(whole), "some are cut, and some are not"
    heard = load_file(tmp_path / "run" / "label" / "heard-eval.safetensors")
    np.testing.assert_array_equal(heard["bytes"], whole * len(words["short"]))
    np.testing.assert_allclose(heard["nll"], whole * len(words["short"]) * NATS, rtol=1e-4)
    assert f"on eval leave out {(~whole).sum()} of {len(whole)} answers" in found["told"]["note"]


def test_student_and_floor_are_compared_with_the_teacher_on_what_it_said_whole(tmp_path: Path) -> None:
    task = make_task(
        "causal_lm", AutoTokenizer.from_pretrained(tiny.save_language_model(tmp_path / "lm", layers=1)), 16
    )
    examples, _ = task.encode([{"id": str(n), "where": "", "prompt": "a", "completion": f" book {n}"} for n in range(40)])  # fmt: skip
    index = RowIndex([one.key for one in examples], *([one.row for one in examples] for _ in range(2)), [4] * 40, [None] * 40)  # fmt: skip
    draw = np.random.default_rng(0)
    sizes, whole = draw.integers(5, 50, 40).astype(np.float64), np.arange(40) % 3 > 0
    bits = {"teacher": 1.0 * whole, "student": np.where(whole, 1.5, 9.0), "floor": np.where(whole, 2.5, 0.1)}
    rows = {
        name: {"nll": each * sizes * math.log(2), "bytes": sizes * (whole if name == "teacher" else 1.0)}
        for name, each in bits.items()
    }
    heard = {"eval": rows["teacher"]}
    made = BlackBoxEvaluation(task, {"eval": examples}, {"eval": index}, tmp_path, 4, Silent(), heard, False)
    made._admit("student", {"eval": rows["student"]})
    found = made.retention("eval", rows["floor"], 200, 0)
    assert found["value"] == pytest.approx((2.5 - 1.5) / (2.5 - 1.0))
    teacher, student = (made.metrics(name, 200, 0)["eval"]["bits_per_byte"]["value"] for name in ("teacher", "student"))  # fmt: skip
    assert teacher == pytest.approx(1.0)
    assert student == pytest.approx((sizes * bits["student"]).sum() / sizes.sum()), (
        "its own number is over all"
    )
