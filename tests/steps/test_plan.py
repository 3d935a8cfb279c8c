"""What the plan says of an evaluation is the sum of what is done in it, at the speeds that were measured."""

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from stillhouse.data.encode import Example
from stillhouse.models.load import load_tokenizer
from stillhouse.recipe import parse_recipe
from stillhouse.steps import plan
from stillhouse.tasks import make_task

SPEED = {
    "teacher_read": 3e-3,
    "student_read": 1e-3,
    "teacher_step": 0.1,
    "student_step": 0.05,
    "compare": 2e-3,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.save_language_model(tmp_path / "model", layers=1)


def rows(count: int, length: int) -> list[Example]:
    ids = [4 + number % 40 for number in range(length)]
    return [Example(str(n), str(n), ids, [-100, *ids[1:]], [0], length) for n in range(count)]


def foretold(folder: Path, held: dict[str, list[Example]], **evaluate: Any) -> float:
    recipe = parse_recipe(
        tiny.language_recipe(folder, evaluate={"speed": False, **evaluate}, report={"samples": 0})
    )
    task = make_task("causal_lm", load_tokenizer(folder), 64)
    return plan._evaluating(recipe, task, held, SPEED)


def test_every_model_reads_every_set_and_is_measured_on_every_position(folder: Path) -> None:
    held = {"eval": rows(3, 64), "other": rows(2, 64)}
    tokens, positions = 5 * 64, 5 * 63
    read = tokens * (3e-3 + 3 * 1e-3)
    assert foretold(folder, held) == pytest.approx(4 * plan.OPENING + read + 4 * positions * 2e-3)
    less = tokens * 1e-3 + positions * 2e-3 + plan.OPENING
    assert foretold(folder, held) - foretold(folder, held, hard_only=False) == pytest.approx(less)


def test_what_is_not_measured_is_not_foretold(folder: Path) -> None:
    timed = foretold(folder, {"eval": rows(1, 64)}, speed=True)
    assert timed > foretold(folder, {"eval": rows(1, 64)}) + 2 * plan.LOADING


def test_a_token_more_and_a_positions_statistics_are_measured_on_the_model_itself(folder: Path) -> None:
    task = make_task("causal_lm", load_tokenizer(folder), 64)
    model = task.load(folder)
    assert plan._step(model, task) > 0
    assert plan._comparing(model, task, rows(2, 64)) > 0
    unknown = [Example("0", "0", list(range(4, 20)), [-100] * 16, [0], 16)]
    with torch.no_grad():
        assert plan._comparing(model, task, unknown) == 0.0
