"""What the plan says of an evaluation is the sum of what is done in it, at the speeds that were measured."""

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from stillhouse import latency
from stillhouse.data.encode import Example
from stillhouse.files import write_json
from stillhouse.models.continuous import Sampling
from stillhouse.models.load import load_tokenizer
from stillhouse.models.machine import device
from stillhouse.recipe import parse_recipe
from stillhouse.steps import evaluating, paces
from stillhouse.tasks import make_task

SPEED: dict[str, float] = {
    "teacher_read": 3e-3,
    "student_read": 1e-3,
    "teacher_step": 0.1,
    "student_step": 0.05,
    "teacher_first": 0.2,
    "student_first": 0.1,
    "teacher_next": 0.12,
    "student_next": 0.06,
    "compare": 2e-3,
    "process": 9.0,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.save_language_model(tmp_path / "model", layers=1)


def rows(count: int, length: int) -> list[Example]:
    ids = [4 + number % 40 for number in range(length)]
    return [Example(str(n), str(n), ids, [-100, *ids[1:]], [0], length) for n in range(count)]


def foretold(
    folder: Path, held: dict[str, list[Example]], pace: dict[str, float] = SPEED, **evaluate: Any
) -> float:
    recipe = parse_recipe(
        tiny.language_recipe(folder, evaluate={"speed": False, **evaluate}, report={"samples": 0})
    )
    task = make_task("causal_lm", load_tokenizer(folder), 64)
    return evaluating.evaluation_takes(recipe, task, held, pace, recipe.evaluate.hard_only)


def test_every_model_reads_every_set_and_is_measured_on_every_position(folder: Path) -> None:
    held = {"eval": rows(3, 64), "other": rows(2, 64)}
    tokens, positions = 5 * 64, 5 * 63
    read = tokens * (3e-3 + 3 * 1e-3)
    assert foretold(folder, held) == pytest.approx(4 * evaluating.OPENING + read + 4 * positions * 2e-3)
    less = tokens * 1e-3 + positions * 2e-3 + evaluating.OPENING
    assert foretold(folder, held) - foretold(folder, held, hard_only=False) == pytest.approx(less)


def timing(folder: Path, speed: dict[str, float]) -> float:
    """What measuring the speeds of teacher and student on one row adds."""
    held = {"eval": rows(1, 64)}
    return foretold(folder, held, speed, speed=True) - foretold(folder, held, speed)


def test_however_small_the_models_are_their_processes_and_moments_are_foretold(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = dict.fromkeys(SPEED, 1e-9) | {"process": 9.0}
    for cores, waves in ((1, 2), (2, 1), (8, 1)):
        monkeypatch.setattr(evaluating, "cores", lambda cores=cores: cores)
        fixed = waves * 9.0 + 2 * latency.FEWEST * latency.MOMENT
        assert timing(folder, none) == pytest.approx(fixed, rel=1e-3)
    assert timing(folder, none | {"teacher_first": 0.0}) == pytest.approx(
        9.0 + latency.FEWEST * latency.MOMENT, rel=1e-3
    ), "a teacher behind an API is not timed"


def test_a_process_takes_as_long_as_that_of_this_run_took_to_start(tmp_path: Path) -> None:
    assert evaluating.start_up(tmp_path) == evaluating.LOADING, "nothing is known yet"
    for before, expected in ((None, evaluating.LOADING), (0.5, evaluating.LOADING), (31.0, 31.0)):
        write_json(tmp_path / "prepare" / "DONE.json", {"seconds_before": before})
        assert evaluating.start_up(tmp_path) == expected


def test_more_requests_and_slower_ones_are_foretold_as_they_are_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = timing(folder, SPEED)
    monkeypatch.setattr(latency, "REQUESTS", latency.REQUESTS + 5)
    assert timing(folder, SPEED) - before == pytest.approx(5 * (0.2 + 0.1))
    monkeypatch.setattr(latency, "NEW_TOKENS", latency.NEW_TOKENS + 2)
    longer = 2 * (1 + latency.FEWEST) * (1 + evaluating.TOGETHER) * (0.12 + 0.06)
    assert timing(folder, SPEED) - before == pytest.approx(5 * (0.2 + 0.1) + longer)


def test_what_a_request_takes_is_measured_on_the_model_itself(folder: Path, tmp_path: Path) -> None:
    task = make_task("causal_lm", load_tokenizer(folder), 64)
    first, following = paces.pace_of_requests(task.load(folder).to(device()), task, rows(3, 64))
    assert first > 0 and following > 0
    kind = tiny.save_classifier(tmp_path / "classifier")
    task = make_task("classification", load_tokenizer(kind), 40, ["bad", "good"])
    some = [Example("0", "0", [2, 5, 6, 3], [0], [0], 9)]
    first, following = paces.pace_of_requests(task.load(kind).to(device()), task, some)
    assert first > 0 and following == 0.0


def test_a_token_more_and_a_positions_statistics_are_measured_on_the_model_itself(folder: Path) -> None:
    task = make_task("causal_lm", load_tokenizer(folder), 64)
    model = task.load(folder).to(device())
    assert paces.pace_of_writing(model, task) > 0
    assert paces.pace_of_comparing(model, task, rows(2, 64)) > 0
    unknown = [Example("0", "0", list(range(4, 20)), [-100] * 16, [0], 16)]
    with torch.no_grad():
        assert paces.pace_of_comparing(model, task, unknown) == 0.0


class Typist:
    """A writer that takes a second to open, 0.25 s to read a prompt and 0.05 s for a token of all, on a clock of its own."""

    identity, batch_size = "typist", 4

    def __init__(self, ends_at: int) -> None:
        self.ends_at, self.now, self.opened = ends_at, 0.0, False
        self.read: list[list[str]] = []

    def tokens(self, prompts: Any, sampling: Sampling, seeds: Any) -> Any:
        self.now += 0.0 if self.opened else 1.0
        self.opened = True
        self.read.append(list(prompts))
        assert sampling.temperature == 0.9, "a drawn token takes longer than the most probable one"
        long = min(self.ends_at, sampling.max_new_tokens)
        self.now += 0.25 * len(prompts) + 0.05 * (long - 1)
        yield from ((number, [1] * long) for number in range(len(prompts)))


@pytest.mark.parametrize("ends_at", [100, 4])
def test_a_writers_pace_is_that_of_its_batch_without_opening_it_wherever_its_texts_end(
    ends_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Typist(ends_at)
    monkeypatch.setattr(paces.time, "perf_counter", lambda: writer.now)
    found = paces.pace_of_texts(
        writer, ["a" * size for size in (9, 1, 7, 3, 5, 8, 2, 4, 6)], Sampling(64, 0.9)
    )  # type: ignore[arg-type]
    assert found == pytest.approx((1.0, 0.05))
    assert {len(prompt) for prompt in writer.read[0]} == {3, 4, 5, 6}, "prompts of middling length"
